//! Takes connections and answers requests, within limits: so many connections, so long for a request.

mod problem;
mod recordings;
mod routes;
mod token;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

pub(super) use self::{
    recordings::Order,
    routes::{Shared, router},
};
use super::config::Listen;

/// Connections at one time: others wait in the kernel's queue.
const CONNECTIONS: usize = 1536;
/// A connection that has not sent the head of a request for so long is closed.
const HEAD: Duration = Duration::from_secs(10);
/// A connection is closed after so long, whatever it does.
const CONNECTION: Duration = Duration::from_secs(300);
/// How long is waited before the next, where one could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// The head of a request has so many bytes at most.
const HEAD_BYTES: usize = 16 << 10;

/// Where connections come in.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// A socket in the file system, which goes when the daemon does.
pub(super) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens it. What an earlier daemon left in the file system is replaced; anything else is not.
    pub(super) async fn open(listen: &Listen) -> Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                Ok(Self::Tcp(listener.with_context(|| format!("cannot listen on {address}"))?))
            }
            Listen::Unix(path) => Self::open_unix(path)
                .with_context(|| format!("cannot listen on {}", path.display())),
        }
    }

    fn open_unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                fs::remove_file(path)?;
            }
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        let socket = Socket(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self::Unix(listener, socket))
    }

    /// Says where it is.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "a port".to_owned(), |address| format!("http://{address}")),
            Self::Unix(_, Socket(path)) => format!("unix:{}", path.display()),
        }
    }

    /// Takes connections for ever.
    pub(super) async fn serve(&self, router: Router) -> ! {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = room.clone().acquire_owned().await.expect("nobody closes it");
            let router = router.clone();
            let accepted = match self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| spawn(stream, router, place))
                }
                Self::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| spawn(stream, router, place))
                }
            };
            // What fails is one connection, or there are no descriptors, which come back.
            if let Err(error) = accepted {
                log::warn!("cannot take a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers a connection, which has its place until it ends.
fn spawn(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        answer(stream, router).await;
        drop(place);
    });
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How a connection ends is its other side's business.
    let _ = timeout(CONNECTION, connection).await;
}
