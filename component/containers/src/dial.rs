//! Connections into an instance: a socket made inside its network namespace, connected from out here.

use crate::boxes::Boxes;
use sandbox::SocketKind;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpSocket, TcpStream};
use world::net::{Dialer, Dialing};

pub(crate) struct InstanceDialer {
    pub(crate) boxes: Arc<Boxes>,
}

impl Dialer for InstanceDialer {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: Option<SocketAddr>) -> Dialing<'a> {
        let away = self.boxes.elsewhere().and_then(|elsewhere| elsewhere.dial(instance.to_owned(), port, client));
        away.unwrap_or_else(|| Box::pin(self.dial_here(instance, port, client)))
    }
}

impl InstanceDialer {
    pub(crate) async fn dial_here(
        &self,
        instance: &str,
        port: u16,
        client: Option<SocketAddr>,
    ) -> io::Result<TcpStream> {
        let dialled = self.connect(instance, port, client).await;
        if dialled.is_err() {
            self.boxes.mistrust(instance);
        }
        dialled
    }

    async fn connect(&self, instance: &str, port: u16, client: Option<SocketAddr>) -> io::Result<TcpStream> {
        let shim = self.boxes.shim(instance).await?;
        let socket = shim.socket(SocketKind::Tcp4).await?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        // Every IPv4 address is local in there, so the program sees its client's own. Loopback stays loopback.
        if let Some(SocketAddr::V4(client)) = client
            && !client.ip().is_loopback()
        {
            let _ = socket.bind(SocketAddr::new((*client.ip()).into(), 0));
        }
        let stream: TcpStream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
