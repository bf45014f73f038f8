//! Whether an HTTP client may have what it asks for.

use std::{net::SocketAddr, time::Duration};

use http::header;
use tracing::warn;
use uuid::Uuid;

use super::{Ticket, WebAnswer, WebRequest};
use crate::shard::{
    Asker, Mail, Shard,
    access::{self, AccessOutcome, AccessQuestion, AccessTo, Presented, VERDICT_WAIT_MAX},
};

/// A request that waits for the control plane.
pub(super) struct Asked {
    since: std::time::Instant,
    server: &'static str,
    remote: SocketAddr,
}

impl Shard {
    /// Whether nobody has to be asked: everybody may.
    pub(in crate::shard) fn web_is_open(&self, to: AccessTo) -> bool {
        access::is_open(&self.settings.access, to)
    }

    /// Asks the control plane whether the client of `request` may have that of the path `name`. `id` is that of the
    /// session that is to be. The answer comes to [`Self::on_web_verdict`], on this shard; it may take seconds.
    pub(in crate::shard) fn ask_web(
        &mut self,
        request: &WebRequest,
        to: AccessTo,
        name: &str,
        query: &str,
        id: Uuid,
    ) {
        let question = AccessQuestion {
            to,
            path: name.to_owned(),
            query: query.to_owned(),
            ip: request.remote.ip(),
            id,
            user_agent: request.header(&header::USER_AGENT).unwrap_or_default().to_owned(),
            presented: Presented::Web {
                service: request.service,
                authorization: request.headers.get(header::AUTHORIZATION).cloned(),
            },
        };
        let asked = Asked { since: self.now.instant, server: request.service.name(), remote: request.remote };
        self.web.asked.insert(request.ticket, asked);
        let (control, asker) = (self.control(), Asker::Web(request.ticket));
        self.mesh.send(control, Mail::Authenticate { asker, question: Box::new(question) });
    }

    /// The control plane has answered. Who is not let in is told so here.
    pub(in crate::shard) fn on_web_verdict(&mut self, ticket: Ticket, outcome: AccessOutcome) {
        let Some(Asked { server, remote, .. }) = self.web.asked.remove(&ticket) else { return };
        let ask = match outcome {
            AccessOutcome::Allowed { user } => return self.web_allowed(ticket, user),
            AccessOutcome::Challenge => true,
            AccessOutcome::Denied { reason } => {
                warn!("[{server}] [conn {remote}] failed to authenticate: {reason}");
                false
            }
        };
        self.web_refused(ticket);
        self.web_answer(ticket, WebAnswer::unauthorized(ask));
    }

    /// Refuses who waits for a control plane that does not answer.
    pub(super) fn check_web_verdicts(&mut self) {
        let now = self.now.instant;
        let late = |asked: &Asked| now.duration_since(asked.since) > VERDICT_WAIT_MAX;
        let tickets: Vec<_> =
            self.web.asked.iter().filter(|(_, asked)| late(asked)).map(|(&ticket, _)| ticket).collect();
        for ticket in tickets {
            let reason = format!("no answer within {} s", Duration::as_secs(&VERDICT_WAIT_MAX));
            self.on_web_verdict(ticket, AccessOutcome::Denied { reason });
        }
    }
}
