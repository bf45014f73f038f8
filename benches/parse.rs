//! What a packet costs before it is in a stream: its frame, its RTP header, a look at its payload.

use std::hint::black_box;

use corecast_media::Codec;
use corecast_proto::{
    rtp::{header, payload},
    rtsp::interleaved,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A fragment of a picture in a packet of the size that encoders send.
fn packet() -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0x12, 0x34, 0, 0, 0x0E, 0x10, 1, 2, 3, 4, 0x7C, 0x41];
    packet.resize(1_212, 0xA5);
    packet
}

fn parse(criterion: &mut Criterion) {
    let packet = packet();
    let mut framed = interleaved::write_header(0, packet.len() as u16).to_vec();
    framed.extend_from_slice(&packet);
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    group.bench_function("rtp_header", |b| b.iter(|| header::parse(black_box(&packet))));
    group.bench_function("interleaved_frame", |b| b.iter(|| interleaved::next_frame(black_box(&framed))));
    for (name, codec) in [("h264", Codec::H264), ("h265", Codec::H265), ("opus", Codec::Opus)] {
        group.bench_function(format!("payload_inspect_{name}"), |b| {
            b.iter(|| payload::inspect(black_box(codec), black_box(&packet[12..])));
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
