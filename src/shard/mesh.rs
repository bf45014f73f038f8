//! How shards and the control thread reach each other: one mailbox for every ordered pair, one doorbell each.
//!
//! What does not fit in a mailbox waits at its sender, so nothing is lost; what waits is bounded by what a shard can
//! have open (connections to hand over) or is small and rare.

use std::{collections::VecDeque, io, sync::Arc};

use corecast_fanout::mailbox::{Doorbell, Receiver, Sender, mailbox};

use super::media_io::WakeFd;

const CAPACITY: usize = 1024;

/// Index of a node: the shards' ids, then the control thread's.
pub type NodeId = usize;

/// One node's ends of all its mailboxes.
pub struct Mesh<M> {
    id: NodeId,
    peers: Vec<Option<Peer<M>>>,
    bells: Vec<Arc<Bell>>,
}

struct Peer<M> {
    outgoing: Sender<M>,
    /// What did not fit.
    waiting: VecDeque<M>,
    incoming: Receiver<M>,
}

struct Bell {
    doorbell: Doorbell,
    wake: WakeFd,
}

/// Makes the mesh of `nodes` nodes.
///
/// # Errors
/// When the system has no descriptor left for a node's wake-up.
pub fn mesh<M: Send>(nodes: usize) -> io::Result<Vec<Mesh<M>>> {
    let bells = (0..nodes)
        .map(|_| Ok(Arc::new(Bell { doorbell: Doorbell::default(), wake: WakeFd::new()? })))
        .collect::<io::Result<Vec<_>>>()?;
    let mut meshes: Vec<Mesh<M>> = (0..nodes)
        .map(|id| Mesh { id, peers: (0..nodes).map(|_| None).collect(), bells: bells.clone() })
        .collect();
    for one in 0..nodes {
        for other in one + 1..nodes {
            let (to_other, from_one) = mailbox(CAPACITY);
            let (to_one, from_other) = mailbox(CAPACITY);
            let waiting = VecDeque::new;
            meshes[one].peers[other] =
                Some(Peer { outgoing: to_other, waiting: waiting(), incoming: from_other });
            meshes[other].peers[one] =
                Some(Peer { outgoing: to_one, waiting: waiting(), incoming: from_one });
        }
    }
    Ok(meshes)
}

impl<M> Mesh<M> {
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// All nodes but this one.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + use<M> {
        let id = self.id;
        (0..self.bells.len()).filter(move |&node| node != id)
    }

    /// The descriptor to sleep on; see [`Self::about_to_sleep`].
    pub fn wake_fd(&self) -> &WakeFd {
        &self.bells[self.id].wake
    }

    /// Sends to another node. Nothing is sent to oneself.
    pub fn send(&mut self, to: NodeId, mail: M) {
        let Some(peer) = self.peers.get_mut(to).and_then(Option::as_mut) else { return };
        peer.waiting.push_back(mail);
        Self::push_waiting(peer, &self.bells[to]);
    }

    /// Sends what the other node can do without: dropped when its mailbox is full.
    pub fn send_if_room(&mut self, to: NodeId, mail: M) {
        if self.peers.get(to).and_then(Option::as_ref).is_some_and(|peer| peer.waiting.is_empty()) {
            self.send(to, mail);
            if let Some(Some(peer)) = self.peers.get_mut(to) {
                peer.waiting.clear();
            }
        }
    }

    fn push_waiting(peer: &mut Peer<M>, bell: &Bell) {
        let mut posted = false;
        while let Some(mail) = peer.waiting.pop_front() {
            match peer.outgoing.post(mail) {
                Ok(()) => posted = true,
                Err(mail) => {
                    peer.waiting.push_front(mail);
                    break;
                }
            }
        }
        if posted && bell.doorbell.must_ring() {
            bell.wake.ring();
        }
    }

    /// Tries again to send what did not fit. True when something still waits.
    pub fn flush(&mut self) -> bool {
        let mut waits = false;
        for (peer, bell) in self.peers.iter_mut().zip(&self.bells) {
            if let Some(peer) = peer
                && !peer.waiting.is_empty()
            {
                Self::push_waiting(peer, bell);
                waits |= !peer.waiting.is_empty();
            }
        }
        waits
    }

    /// Takes one mail, with its sender.
    pub fn take(&mut self) -> Option<(NodeId, M)> {
        self.peers
            .iter_mut()
            .enumerate()
            .find_map(|(from, peer)| Some((from, peer.as_mut()?.incoming.take()?)))
    }

    /// Declares that the node is going to sleep on [`Self::wake_fd`]. False when there is mail: then it must not.
    pub fn about_to_sleep(&self) -> bool {
        let bell = &self.bells[self.id];
        bell.doorbell.about_to_sleep();
        self.peers.iter().flatten().all(|peer| peer.incoming.is_empty())
    }

    /// Declares that the node is awake.
    pub fn awake(&self) {
        self.bells[self.id].doorbell.awake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_beyond_the_capacity_waits_and_arrives_in_order() {
        let mut nodes = mesh::<usize>(2).unwrap();
        let mut receiver = nodes.pop().unwrap();
        let mut sender = nodes.pop().unwrap();
        for mail in 0..3 * CAPACITY {
            sender.send(1, mail);
        }
        assert!(sender.flush());
        for expected in 0..3 * CAPACITY {
            let mail = receiver.take().or_else(|| {
                sender.flush();
                receiver.take()
            });
            assert_eq!(mail, Some((0, expected)));
        }
        assert!(!sender.flush());
        assert_eq!(receiver.take(), None);
    }

    #[test]
    fn a_node_with_mail_does_not_sleep() {
        let mut nodes = mesh::<u8>(3).unwrap();
        assert!(nodes[2].about_to_sleep());
        nodes[0].send(2, 7);
        assert!(!nodes[2].about_to_sleep());
        assert_eq!(nodes[2].take(), Some((0, 7)));
        assert_eq!(nodes[1].others().collect::<Vec<_>>(), [0, 2]);
    }
}
