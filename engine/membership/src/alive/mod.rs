//! Who is alive, as far as this machine has heard.
