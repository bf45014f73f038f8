//! A camera in a network namespace of its own, behind a wire that loses packets and lets them overtake each other.
//!
//! ```text
//! relay ── veth ═ veth ── wire.py ── veth ═ veth ── camera
//! (here)         (namespace "wire")         (namespace "camera")
//! ```
//!
//! The wire is a program of ours because netem is not in every kernel; it knows exactly how many packets it lost. All
//! of it needs root and CAP_NET_ADMIN, and is taken down at the end.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    process::Command,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Mock, PATIENCE, mock::Plan, tools::Tool, wait_for};

pub struct Wire {
    tag: String,
    camera: Ipv4Addr,
    wire: Option<Tool>,
}

/// What the wire did to RTP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toll {
    pub sent: usize,
    pub lost: usize,
    pub swapped: usize,
}

#[track_caller]
fn ip(line: &str) {
    let ran =
        Command::new("ip").args(line.split(' ')).output().expect("ip (iproute2) is needed by this test");
    assert!(
        ran.status.success(),
        "`ip {line}` failed; this test needs root with CAP_NET_ADMIN, as in .ci/run: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

impl Wire {
    /// `loss` and `swap` are shares of the RTP packets.
    pub fn lay(loss: f64, swap: f64) -> Self {
        // Names of interfaces have at most 15 characters; two runs on one machine must not meet.
        let process = std::process::id();
        let tag = format!("cc{process}");
        let subnet = process % 16_384;
        let (third, fourth) = ((subnet >> 6) as u8, (subnet << 2) as u8);
        let address = |n| Ipv4Addr::new(198, 18, third, fourth | n);
        let (here, camera) = (address(1), address(2));
        let mut wire = Self { tag: tag.clone(), camera, wire: None };
        for line in [
            format!("netns add {tag}w"),
            format!("netns add {tag}c"),
            format!("link add {tag}0 type veth peer name {tag}1 netns {tag}w"),
            format!("-n {tag}w link add {tag}2 type veth peer name {tag}3 netns {tag}c"),
            format!("addr add {here}/30 dev {tag}0"),
            format!("link set {tag}0 up"),
            format!("-n {tag}w link set {tag}1 up"),
            format!("-n {tag}w link set {tag}2 up"),
            format!("-n {tag}c addr add {camera}/30 dev {tag}3"),
            format!("-n {tag}c link set {tag}3 up"),
            format!("-n {tag}c link set lo up"),
        ] {
            ip(&line);
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/wire.py");
        let args =
            ["netns", "exec", &format!("{tag}w"), "python3", script, &format!("{tag}1"), &format!("{tag}2")]
                .map(str::to_owned);
        let shares = [loss.to_string(), swap.to_string(), "1".to_owned()];
        let mut tool = Tool::run("ip", args.iter().chain(&shares));
        wait_for("the wire carries packets", PATIENCE, || {
            assert!(tool.is_running(), "the wire does not start: {}", tool.stderr_so_far());
            tool.stdout_so_far().starts_with("up").then_some(())
        });
        wire.wire = Some(tool);
        wire
    }

    /// A camera at its far end.
    pub fn camera(&self, plan: &str) -> Mock {
        let namespace = File::open(format!("/run/netns/{}c", self.tag)).unwrap();
        let (plan, at) = (Plan::read(plan), SocketAddr::from((self.camera, 0)));
        // A thread is in a namespace for good, and so are those that it starts.
        let started = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            Mock::with(&plan, None, at)
        });
        started.join().unwrap()
    }

    /// Cuts the wire and tells what it did.
    pub fn cut(mut self) -> Toll {
        let tool = self.wire.take().expect("it was laid");
        tool.terminate();
        let ended = tool.ended();
        let told = ended.stdout.lines().last().unwrap_or_default().to_owned();
        let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [sent, lost, swapped] = numbers[..] else { panic!("the wire said {told:?}: {}", ended.stderr) };
        Toll { sent, lost, swapped }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.wire.take());
        // A namespace takes its interfaces with it, and theirs their peers.
        for namespace in ["w", "c"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{namespace}", self.tag)]).status();
        }
    }
}
