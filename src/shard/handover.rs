//! A connection goes to the shard where its path lives, and stays the same connection.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use corecast_hub::roster::ConnTraffic;
use uuid::Uuid;

use super::{
    Kind, Mail, Shard, access::Standing, connection::Connection, ids, listen::Adopted, slots::Key, tls::Tls,
};
use crate::sources::publication::Now;

/// A connection on its way to another shard.
pub struct Handover {
    pub identity: Identity,
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// Everything received from the unanswered request on.
    pub inbox: Vec<u8>,
    /// Answers that did not go out yet.
    pub out: Vec<u8>,
    /// The path whose claim led it there.
    pub claim: Option<Arc<str>>,
}

/// What stays of a connection from shard to shard.
pub struct Identity {
    pub id: Uuid,
    pub created: Duration,
    pub traffic: Arc<ConnTraffic>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub standing: Standing,
    pub tls: Option<Box<Tls>>,
}

impl Identity {
    /// Of a connection that was accepted at `now`.
    pub fn new(now: Now, tls: Option<Box<Tls>>) -> Self {
        Self {
            id: ids::new_uuid(),
            created: now.wall,
            traffic: Arc::default(),
            received_bytes: 0,
            sent_bytes: 0,
            standing: Standing::default(),
            tls,
        }
    }
}

impl Shard {
    /// Takes over a connection from another shard and goes on with its request.
    pub(super) fn take_over(&mut self, handover: Handover) {
        let Handover { identity, socket, peer, inbox, out, claim } = handover;
        let path = claim.and_then(|path| self.claimed_path(&path));
        let mut connection = Connection::new(identity, socket, peer, self.now.instant);
        (connection.inbox, connection.out, connection.spoke) = (inbox, out, true);
        if let Some(key) = self.adopt(connection, Adopted::FromOtherShard) {
            self.flush_out(key);
            self.progress(key);
        }
        if let Some(path) = path {
            self.release_path(path);
        }
    }

    /// Sends a connection with all that it has not been answered to another shard.
    pub(super) fn hand_over(&mut self, key: Key, to: usize, claim: Option<Arc<str>>) {
        let Some(connection) = self.connections.remove(key) else { return };
        self.io.unwatch(connection.fd(), Kind::Connection.token(key));
        let Connection { id, created, traffic, received_bytes, sent_bytes, standing, tls, .. } = connection;
        let identity = Identity { id, created, traffic, received_bytes, sent_bytes, standing, tls };
        let Connection { socket, peer, inbox, mut out, out_sent, .. } = connection;
        out.drain(..out_sent);
        let handover = Handover { identity, socket, peer, inbox, out, claim };
        self.mesh.send(to, Mail::Connection(Box::new(handover)));
    }
}
