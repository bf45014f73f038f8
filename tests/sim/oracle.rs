//! What lies in the ring, remembered for ever: what readers get is held against it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use corecast_hub::stream::Stream;

use super::camera::VIDEO;

const VIDEO_CHANNEL: u8 = 2 * VIDEO as u8;

pub struct Entry {
    pub start: u64,
    pub channel: u8,
    pub arrival_us: u64,
    /// Its picture, if it is video.
    pub unit: Option<usize>,
    pub packet: Vec<u8>,
}

/// A picture, from the packets that came of it.
pub struct Unit {
    /// Its first packet.
    pub first: usize,
    /// The start of a key picture came through.
    pub key: bool,
    timestamp: [u8; 4],
    ended: bool,
}

#[derive(Default)]
pub struct Oracle {
    pub entries: Vec<Entry>,
    pub units: Vec<Unit>,
    /// Position after the last packet.
    pub head: u64,
    places: HashMap<u64, usize>,
    last_sequence: [Option<u16>; 2],
}

impl Oracle {
    /// Takes in what was added to the stream. Each packet must be new, and later than the one before of its track.
    pub fn absorb(&mut self, stream: &Stream, now_us: u64) {
        while let Some(&[magic, channel, high, low]) = stream.get(self.head..self.head + 4) {
            assert_eq!(magic, b'$', "the ring is cut at {}", self.head);
            let end = self.head + 4 + u64::from(u16::from_be_bytes([high, low]));
            let packet = stream.get(self.head + 4..end).expect("a whole packet").to_vec();
            let index = self.entries.len();
            let known = self.places.insert(key(channel, &packet), index);
            assert_eq!(known, None, "packet {index} is in the ring twice");
            let unit = if channel == VIDEO_CHANNEL { Some(self.unit_of(index, &packet)) } else { None };
            if channel.is_multiple_of(2) {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                if let Some(last) = self.last_sequence[usize::from(channel / 2)].replace(sequence) {
                    let step = sequence.wrapping_sub(last);
                    assert!((1..1000).contains(&step), "channel {channel}: {sequence} after {last}");
                }
            }
            self.entries.push(Entry { start: self.head, channel, arrival_us: now_us, unit, packet });
            self.head = end;
        }
    }

    fn unit_of(&mut self, index: usize, packet: &[u8]) -> usize {
        let timestamp = [packet[4], packet[5], packet[6], packet[7]];
        let goes_on = |unit: &Unit| !unit.ended && unit.timestamp == timestamp;
        if !self.units.last().is_some_and(goes_on) {
            self.units.push(Unit { first: index, key: false, timestamp, ended: false });
        }
        let number = self.units.len() - 1;
        let unit = &mut self.units[number];
        unit.ended = packet[1] & 0x80 != 0;
        unit.key |= match packet[12] & 0x1F {
            5 => true,
            28 => packet[13] & 0x9F == 0x85, // FU-A: the start bit, and an IDR slice
            _ => false,
        };
        number
    }

    /// Where in the ring a packet stands that a reader got.
    pub fn place_of(&self, channel: u8, packet: &[u8]) -> Option<usize> {
        let index = *self.places.get(&key(channel, packet))?;
        (self.entries[index].packet == packet).then_some(index)
    }

    pub fn begins_key_unit(&self, index: usize) -> bool {
        let unit = self.entries[index].unit.map(|unit| &self.units[unit]);
        unit.is_some_and(|unit| unit.first == index && unit.key)
    }
}

fn key(channel: u8, packet: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (channel, packet).hash(&mut hasher);
    hasher.finish()
}
