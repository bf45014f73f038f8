//! Opus in RTP (RFC 6716, RFC 7587).

use std::time::Duration;

/// Duration of the audio in one Opus packet (RFC 6716 §3.1 and §3.2). `None` if the packet is cut short or
/// longer than the 120 ms a packet may last.
pub fn packet_duration(packet: &[u8]) -> Option<Duration> {
    let &toc = packet.first()?;
    // §3.1, table 2: frame sizes in microseconds
    let frame_us = match toc >> 3 {
        config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config % 4)],
        config @ 12..=15 => [10_000, 20_000][usize::from(config % 2)],
        config => [2_500, 5_000, 10_000, 20_000][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f), // §3.2.5
    };
    (1..=120_000).contains(&(frame_us * frames)).then(|| Duration::from_micros(frame_us * frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_durations_follow_the_toc() {
        for (packet, micros) in [
            (&[0x00][..], Some(10_000)),   // SILK NB 10 ms, one frame
            (&[0x19], Some(120_000)),      // SILK NB 60 ms, two frames
            (&[0x78], Some(20_000)),       // hybrid FB 20 ms
            (&[0xfc], Some(20_000)),       // CELT FB 20 ms
            (&[0xe2], Some(5_000)),        // CELT FB 2.5 ms, two frames
            (&[0xfb, 0x03], Some(60_000)), // CELT FB 20 ms, three frames
            (&[0xfb, 0x07], None),         // 140 ms
            (&[0xfb, 0x00], None),
            (&[0xfb], None),
            (&[], None),
        ] {
            assert_eq!(packet_duration(packet), micros.map(Duration::from_micros), "{packet:x?}");
        }
    }
}
