//! Rules of the house, made executable: `cargo xtask tidy`.
//!
//! Owns what neither rustc nor clippy can say about this workspace. Reads files and prints findings; changes nothing.

mod tidy;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        Some(other) => {
            eprintln!("xtask: there is no command `{other}`; there is: tidy");
            ExitCode::from(2)
        }
        None => {
            eprintln!("usage: cargo xtask tidy");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace");
    let tree = match tidy::tree::Tree::read(root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("xtask: cannot read the workspace: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = tidy::check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("tidy: {} to mend", findings.len());
    ExitCode::FAILURE
}
