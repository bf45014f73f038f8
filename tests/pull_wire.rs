//! A pull over UDP through a bad network: what is lost is counted, what was overtaken is put in order, and readers get
//! all that arrived.

use crate::support::{
    Flow, PATIENCE, Rtsp, Server, ours_or_say_skipped, wait_for,
    wire::{Toll, Wire},
};

const PACKETS: usize = 2_000;

#[test]
fn two_percent_loss_and_reordering_on_the_way() {
    if !ours_or_say_skipped("lost packets of a source are counted") {
        return;
    }
    let wire = Wire::lay(0.02, 0.03);
    let camera = wire.camera("video fps=50 gop=50 frame=4500 key=15000");
    let path = format!("  far:\n    source: {}\n    rtspTransport: udp\n", camera.url("cam"));
    let server = Server::with_api("", &path);
    server.wait_live("far");
    let record = wait_for("the camera plays", PATIENCE, || camera.record("cam"));
    let mut reader = Rtsp::play_tcp(&server, "far");
    // It panics at a packet that comes after a later one, or that was never sent so.
    let mut flow = Flow::of_record(record.clone());
    flow.read(&mut reader, PACKETS);
    let missing: usize = flow.holes.iter().map(|(before, after)| after - before - 1).sum();
    assert!(missing >= PACKETS / 200, "the wire loses nothing: {missing} of {PACKETS} packets");
    assert_eq!(camera.played("cam")[0].transport, "udp");
    assert_eq!(camera.played("cam").len(), 1, "losses are no reason to begin anew");
    // Receiver reports tell the camera.
    assert!(camera.receiver_reports() > 0);

    // The camera is there to the end, so that all that was sent is accounted for. A busy machine may lose some more; the
    // last ones of the wire are missed by nobody, for no later packet came.
    let Toll { sent, lost: taken, swapped } = wire.cut();
    assert!(sent >= PACKETS && swapped > 20, "{sent} packets, {swapped} overtaken");
    let counted = wait_for(&format!("{taken} lost packets are counted, of {sent}"), PATIENCE, || {
        Some(lost(&server)).filter(|counted| counted + 3 >= taken)
    });
    assert!(counted >= missing, "{counted} are counted, and {missing} were missed by the reader alone");
    assert!(counted < sent / 2, "{counted} are counted, of {sent} that were sent and {taken} that were lost");
}

fn lost(server: &Server) -> usize {
    let path = server.get("/v3/paths/get/far").json();
    path["inboundRTPPacketsLost"].as_u64().unwrap_or_else(|| panic!("no count of losses in {path}")) as usize
}
