//! Why an address is not held.

use crate::Floating;
use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text:?} is no floating address: {why}")]
    Text { text: String, why: &'static str },
    #[error("hold {address}: this program may not change addresses of this machine (CAP_NET_ADMIN)")]
    MayNotChange { address: Floating },
    #[error("announce {address}: this program may not send frames (CAP_NET_RAW)")]
    MayNotAnnounce { address: Floating },
    #[error("no interface of this machine is on the network of {address}; there are {present}")]
    NoInterface { address: Floating, present: String },
    #[error("there is no interface {name}; there are {present}")]
    Unknown { name: String, present: String },
    #[error("{address} cannot be announced on {name}: it is no Ethernet or Wi-Fi")]
    NoEthernet { address: Floating, name: String },
    #[error("{address} is on {name} for good: it is this machine's own")]
    Own { address: Floating, name: String },
    #[error("{what}")]
    Kernel {
        what: &'static str,
        #[source]
        source: Errno,
    },
    #[error("the kernel's answer ends too early or never: {what}")]
    Answer { what: &'static str },
    #[error("{address} was not taken away in time; the kernel does it within seconds")]
    Late { address: Floating },
}

impl Error {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::MayNotChange { .. } | Error::MayNotAnnounce { .. } => Some(
                "setcap cap_net_admin,cap_net_raw+ep on the program's file, then start it again; without a floating \
                 address, give the name of the site the addresses of several machines (A and AAAA records)",
            ),
            Error::Text { .. } => {
                Some("an address of the machines' own network that none of them has, as 192.168.1.80")
            }
            Error::NoInterface { .. } => {
                Some("take an address of the network that the machines are on, or name the interface")
            }
            Error::Unknown { .. } | Error::NoEthernet { .. } => {
                Some("name an interface that other machines are reached by")
            }
            Error::Own { .. } => Some("take an address that no machine has; `ip address` shows them"),
            Error::Kernel { .. } | Error::Answer { .. } | Error::Late { .. } => None,
        }
    }
}
