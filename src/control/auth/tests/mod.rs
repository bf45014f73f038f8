//! Whom [`Auth`] lets in, by every method and from everywhere.

mod access;
mod elsewhere;
mod tokens;

use std::time::Duration;

use super::*;
use crate::control::settings::{Credential, PathScope, Permission, User, UserName};

/// With penalties too short to wait for.
fn auth(method: AuthMethod) -> Auth {
    let settings = AuthSettings { method, timeout: Duration::from_secs(5) };
    Auth { penalties: Penalties::with_delay(Duration::from_millis(1)), ..Auth::new(Arc::new(settings)) }
}

fn may(action: Action, path: PathScope) -> Permission {
    Permission { action, path }
}

fn question(credentials: Credentials) -> Question {
    Question {
        action: Action::Read,
        path: "cam".to_owned(),
        entry: Some("all_others".into()),
        query: String::new(),
        ip: "10.0.0.1".parse().unwrap(),
        protocol: Protocol::Rtsp,
        id: Some(Uuid::from_u128(7)),
        user_agent: "player".to_owned(),
        credentials,
    }
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
}

fn allowed(user: &str) -> Verdict {
    Verdict::Allowed { user: user.to_owned() }
}

#[track_caller]
fn assert_denied(verdict: &Verdict, because: &str) {
    match verdict {
        Verdict::Denied { reason } => {
            assert!(reason.starts_with("authentication failed") && reason.contains(because), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// A server on this machine; its address, as the begin of a URL.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((conn, _)) = listener.accept().await else { return };
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let conn = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(conn), service);
            tokio::spawn(conn);
        }
    });
    format!("http://{address}")
}
