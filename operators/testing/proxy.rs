//! A TCP proxy on 127.0.0.1 that a test can make misbehave: cut, reset, stall, refuse, forget to hang up.
//!
//! ```text
//! client <──> proxy <──> server on 127.0.0.1        each connection: two copies, watching one Control
//! ```
//! It runs on a thread of its own, so that a test that blocks does not hold it up, and ends with the value.

use socket2::SockRef;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What connections go by.
#[derive(Clone, Debug)]
struct Control {
    target: u16,
    /// Nothing is read or written; connections stay open.
    stalled: bool,
    /// Connections so far.
    opened: u64,
    /// Connections before this one are stalled for good.
    thawed: u64,
    /// New connections are closed at once.
    refusing: bool,
    /// When a client ends, the server does not learn of it.
    forgetful: bool,
    /// Raised to end every connection.
    generation: u64,
    /// Whether they end by a reset.
    reset: bool,
}

/// A proxy.
pub struct Proxy {
    port: u16,
    control: Arc<watch::Sender<Control>>,
}

impl Proxy {
    /// A proxy to a port of 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(target: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        listener.set_nonblocking(true).expect("a socket of our own");
        let control =
            Control { target, stalled: false, opened: 0, thawed: 0, refusing: false, forgetful: false, generation: 0, reset: false };
        let (control, watched) = watch::channel(control);
        let control = Arc::new(control);
        let counting = Arc::downgrade(&control);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { accept(TcpListener::from_std(listener).expect("a listener"), watched, counting).await });
        });
        Self { port, control }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends new connections elsewhere.
    pub fn aim(&self, target: u16) {
        self.control.send_modify(|control| control.target = target);
    }

    /// Ends every connection; by a reset, or in good order.
    pub fn cut(&self, reset: bool) {
        self.control.send_modify(|control| {
            control.generation += 1;
            control.reset = reset;
        });
    }

    /// Passes nothing on while on: connections stay half open.
    pub fn stall(&self, on: bool) {
        self.control.send_modify(|control| control.stalled = on);
    }

    /// Passes nothing on over the connections there are, for good: a middlebox has forgotten them.
    pub fn freeze(&self) {
        self.control.send_modify(|control| control.thawed = control.opened);
    }

    /// Closes new connections at once while on.
    pub fn refuse(&self, on: bool) {
        self.control.send_modify(|control| control.refusing = on);
    }

    /// While on, a server does not learn that its client has ended.
    pub fn forget(&self, on: bool) {
        self.control.send_modify(|control| control.forgetful = on);
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.control.send_modify(|control| {
            (control.stalled, control.refusing, control.forgetful) = (false, false, false);
        });
    }
}

/// Ends when the proxy is dropped.
async fn accept(listener: TcpListener, mut control: watch::Receiver<Control>, counting: Weak<watch::Sender<Control>>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted
                && !control.borrow().refusing
            {
                let Some(count) = counting.upgrade() else { return };
                let number = control.borrow().opened;
                count.send_modify(|control| control.opened += 1);
                tokio::spawn(connection(number, client, control.clone()));
            },
            changed = control.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

async fn connection(number: u64, client: TcpStream, mut control: watch::Receiver<Control>) {
    let (target, generation) = (control.borrow().target, control.borrow().generation);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (watching, seen) = (control.clone(), control.clone());
    let both = async {
        tokio::select! {
            _ = copy(number, &mut from_client, &mut to_server, watching) => {}
            _ = copy(number, &mut from_server, &mut to_client, seen) => {}
        }
    };
    let cut = tokio::select! {
        () = both => false,
        _ = control.wait_for(|control| control.generation != generation) => true,
    };
    if !cut && control.borrow().forgetful {
        drop((from_client, to_client));
        let _ = control.wait_for(|control| control.generation != generation).await;
        return;
    }
    if cut && control.borrow().reset {
        // A socket that lingers for no time ends by a reset.
        for socket in [SockRef::from(to_client.as_ref()), SockRef::from(to_server.as_ref())] {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

async fn copy(
    number: u64,
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let passes = |control: &Control| !control.stalled && number >= control.thawed;
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        control.wait_for(passes).await.map_err(gone)?;
        let read = from.read(&mut buffer).await?;
        // What was read while it stalled waits as well: an end, too.
        control.wait_for(passes).await.map_err(gone)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
