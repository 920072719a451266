//! nginx as the origin and as the peer.

use std::net::SocketAddr;

use anyhow::Result;

use crate::subject::{LOAD_CORE, SUBJECT_CORE, Setup, Subject, free_addr};

/// A small fixed answer, on the generator's core.
pub fn origin(setup: &Setup) -> Result<Subject> {
    let addr = free_addr()?;
    let server = format!(
        "server {{ listen {addr} reuseport; location / {{ default_type application/json; \
         return 200 '{{\"hello\":\"world\"}}'; }} }}"
    );
    start(setup, "origin", LOAD_CORE, addr, &server)
}

/// What every reverse proxy does, and the same headers that the edge adds.
pub fn passthrough(setup: &Setup, origin: SocketAddr) -> Result<Subject> {
    let addr = free_addr()?;
    let server = format!(
        "upstream origin {{ server {origin}; keepalive 128; keepalive_requests 100000000; }}
         server {{
           listen {addr} reuseport;
           location / {{
             proxy_pass http://origin;
             proxy_http_version 1.1;
             proxy_set_header Connection '';
             proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $remote_addr;
             proxy_set_header X-Forwarded-Proto $scheme;
             proxy_set_header X-Forwarded-Host $host;
             proxy_set_header Forwarded 'for=$remote_addr;host=$host;proto=$scheme';
             proxy_set_header Via '1.1 nginx';
             proxy_set_header X-Request-Id $request_id;
             add_header X-Request-Id $request_id;
             add_header Via '1.1 nginx';
           }}
         }}"
    );
    start(setup, "nginx passthrough", SUBJECT_CORE, addr, &server)
}

fn start(
    setup: &Setup,
    name: &'static str,
    core: &str,
    addr: SocketAddr,
    server: &str,
) -> Result<Subject> {
    let dir = setup.dir.join(name.replace(' ', "-"));
    std::fs::create_dir_all(&dir)?;
    let conf = dir.join("nginx.conf");
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", dir.display()))
        .join("\n");
    let text = format!(
        "worker_processes 1; daemon off; pid {0}/pid; error_log {0}/error.log;
         events {{ worker_connections 4096; }}
         http {{ access_log off; keepalive_requests 100000000; {temp} {server} }}",
        dir.display()
    );
    std::fs::write(&conf, text)?;
    let conf = conf.display().to_string();
    Subject::start(name, core, addr, &["nginx", "-c", &conf, "-e", "stderr"], &[], &dir.join("log"))
}
