//! Accepts connections and carries each of them in a task of its own.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info};

use super::{
    GRACE,
    front::{Front, Peer},
    listen::Listener,
    stream::{Counted, Exchange, Watched},
    tls::Certificate,
};

/// Largest head of a request, bytes; also what a connection may buffer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most header fields of a request.
const HEADERS_MAX: usize = 100;
/// Rest after the system had no descriptor or memory for another connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Until `stopping` says so, or its sender is gone.
pub(super) async fn run(
    listener: Listener,
    certificate: Option<Arc<Certificate>>,
    front: Arc<Front>,
    seats: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let name = front.site.name;
    let acceptor = certificate.as_ref().map(Certificate::acceptor);
    let watching = async {
        match &certificate {
            Some(certificate) => certificate.watch(name).await,
            None => std::future::pending().await,
        }
    };
    let accepting = async {
        loop {
            // Never fails: the semaphore is not closed.
            let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
            match &listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((stream, remote)) => {
                        // Answers are written whole; what follows must not wait for an acknowledgement.
                        let _ = stream.set_nodelay(true);
                        let peer = Peer { ip: remote.ip().to_canonical(), name: remote.to_string() };
                        start(stream, peer, acceptor.clone(), &front, seat);
                    }
                    Err(reason) => rest_after(name, &reason).await,
                },
                Listener::Unix { listener, .. } => match listener.accept().await {
                    Ok((stream, _)) => {
                        // Who may open the file is on this machine.
                        let peer = Peer { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), name: "unix".to_owned() };
                        start(stream, peer, acceptor.clone(), &front, seat);
                    }
                    Err(reason) => rest_after(name, &reason).await,
                },
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = watching => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    info!("[{name}] closing");
}

async fn rest_after(name: &str, reason: &io::Error) {
    // A client that left before it was accepted is nobody's trouble.
    if reason.kind() != io::ErrorKind::ConnectionAborted {
        error!("[{name}] cannot accept a connection: {reason}");
        sleep(ACCEPT_REST).await;
    }
}

fn start<S>(
    stream: S,
    peer: Peer,
    acceptor: Option<TlsAcceptor>,
    front: &Arc<Front>,
    seat: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let front = Arc::clone(front);
    tokio::spawn(async move {
        match acceptor {
            None => carry(stream, peer, front).await,
            Some(acceptor) => match timeout(front.site.read_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => carry(stream, peer, front).await,
                Ok(Err(reason)) => {
                    debug!("[{}] [conn {}] no TLS: {reason}", front.site.name, peer.name);
                }
                Err(_) => debug!("[{}] [conn {}] no TLS in time", front.site.name, peer.name),
            },
        }
        drop(seat);
    });
}

async fn carry<S>(stream: S, peer: Peer, front: Arc<Front>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let site = &front.site;
    let stream = Watched::new(stream, Arc::clone(&exchange), site.read_timeout, site.write_timeout);
    let mut stopping = front.stopping.clone();
    let service = service_fn(|request: Request<Incoming>| {
        exchange.begin();
        let (front, peer, exchange) = (&front, &peer, Arc::clone(&exchange));
        async move {
            let answer = front.answer(peer, request.map(Body::new)).await;
            Ok::<_, Infallible>(answer.map(|body| Counted::new(body, exchange)))
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // `Watched` knows better: this one would end an idle connection, too.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What `wait_for` returns is a guard, which must not live on across the wait below.
    let stopped = async move { stopping.wait_for(|stop| *stop).await.is_ok() };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped => {
            connection.as_mut().graceful_shutdown();
            match timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(reason) = ended {
        debug!("[{}] [conn {}] closed: {reason}", front.site.name, peer.name);
    }
}
