//! The image the measurements deploy: a static web server of a few lines, and what makes it ten megabytes.

use lab::image::{self, Image};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Answers every request with two bytes; one process, one connection after the other.
const SOURCE: &str = r#"
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8000)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 128)) return 1;
    for (;;) {
        char request[8192];
        size_t have = 0;
        int client = accept(listener, 0, 0);
        while (client >= 0 && have < sizeof request - 1) {
            ssize_t count = read(client, request + have, sizeof request - 1 - have);
            if (count <= 0) break;
            have += (size_t)count;
            request[have] = 0;
            if (strstr(request, "\r\n\r\n")) {
                if (write(client, answer, sizeof answer - 1) < 0) break;
                shutdown(client, SHUT_WR);
            }
        }
        if (client >= 0) close(client);
    }
}
"#;
/// Port it listens on.
pub(super) const PORT: u16 = 8000;
const SIZE_BYTES: usize = 10 << 20;

pub(super) fn web_server(folder: &Path) -> Image {
    let source = folder.join("web.c");
    let program = folder.join("web");
    std::fs::write(&source, SOURCE).expect("a temporary folder takes a file");
    let status = Command::new("gcc").args(["-O1", "-static", "-o"]).arg(&program).arg(&source).status();
    assert!(status.is_ok_and(|status| status.success()), "gcc compiles the web server (apt-get install gcc libc6-dev)");
    let program = std::fs::read(&program).expect("gcc wrote it");
    let rest = filling(SIZE_BYTES.saturating_sub(program.len()));
    let files = [("web", 0o755, program.as_slice()), ("rest", 0o644, rest.as_slice())];
    image::of_files(&files, json!({"Cmd": ["/web"]}))
}

/// Bytes that no compression makes fewer: a generator's, always the same.
fn filling(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(count);
    bytes
}
