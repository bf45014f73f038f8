//! H.264 (RFC 6184 §5.6 to §5.8) and H.265 (RFC 7798 §4.4).

use super::{NAL_LENGTH_BYTES, ParameterSets, UNIT_BYTES_MAX, Unit};
use crate::rtp::payload::aggregated;

/// Identifiers of picture parameter sets that are kept; real streams have one or two.
const PPS_MAX: usize = 8;
/// Bytes of one parameter set.
const SET_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    H264,
    /// `donl`: decoding order numbers are in the packets (RFC 7798 §4.4). They are passed over; units stay in the
    /// order in which they were sent.
    H265 {
        donl: bool,
    },
}

/// What becomes of a NAL unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Vps,
    Sps,
    Pps,
    /// A slice of a picture that a decoder can start with.
    Key,
    Other,
    /// Delimiters, end marks and filler.
    Useless,
}

#[derive(Debug)]
pub(super) struct Assembler {
    syntax: Syntax,
    sets: ParameterSets,
    revision: u32,
    data: Vec<u8>,
    timestamp_wrapped: Option<u32>,
    key: bool,
    damaged: bool,
    /// Where the NAL unit begins, in `data`, of which more fragments are to come.
    open: Option<usize>,
    /// The source sets the marker within units, so that only a new time stamp ends one.
    marker_lies: bool,
    /// Time stamp of the unit that a marker ended.
    ended: Option<u32>,
}

impl Assembler {
    pub(super) fn new(syntax: Syntax) -> Self {
        Self {
            syntax,
            sets: ParameterSets::default(),
            revision: 0,
            data: Vec::new(),
            timestamp_wrapped: None,
            key: false,
            damaged: false,
            open: None,
            marker_lies: false,
            ended: None,
        }
    }

    pub(super) fn parameter_sets(&self) -> &ParameterSets {
        &self.sets
    }

    pub(super) fn revision(&self) -> u32 {
        self.revision
    }

    /// Takes a parameter set from the description.
    pub(super) fn announce(&mut self, nal: &[u8]) {
        let role = self.role(nal);
        if matches!(role, Role::Vps | Role::Sps | Role::Pps) {
            self.keep_set(role, nal);
        }
    }

    pub(super) fn push(
        &mut self,
        timestamp_wrapped: u32,
        marker: bool,
        lost: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(Unit<'_>),
    ) {
        if lost {
            self.abandon_open();
        }
        let continues = self.timestamp_wrapped == Some(timestamp_wrapped);
        if !continues {
            // The end of the one that is open may be among what was lost; the start of the one that begins, too.
            self.damaged |= lost;
            self.deliver(emit);
        }
        self.damaged |= lost && (continues || !self.begins_unit(payload));
        if self.ended == Some(timestamp_wrapped) && !lost {
            self.marker_lies = true;
        }
        self.timestamp_wrapped = Some(timestamp_wrapped);
        self.take(payload);
        if marker && !self.marker_lies {
            self.deliver(emit);
        }
    }

    pub(super) fn flush(&mut self, emit: &mut dyn FnMut(Unit<'_>)) {
        if self.timestamp_wrapped.is_some() {
            self.damaged = true;
            self.deliver(emit);
        }
        self.ended = None;
    }

    fn deliver(&mut self, emit: &mut dyn FnMut(Unit<'_>)) {
        self.abandon_open();
        let timestamp_wrapped = self.timestamp_wrapped.take();
        if let Some(timestamp_wrapped) = timestamp_wrapped.filter(|_| !self.data.is_empty()) {
            self.ended = Some(timestamp_wrapped);
            let sets = Some((&self.sets, self.revision));
            emit(Unit { timestamp_wrapped, data: &self.data, key: self.key, damaged: self.damaged, sets });
        }
        self.data.clear();
        // The room for one huge picture is not kept for ever.
        if self.data.capacity() > 2 * 1024 * 1024 {
            self.data = Vec::new();
        }
        (self.key, self.damaged) = (false, false);
    }

    fn abandon_open(&mut self) {
        if let Some(start) = self.open.take() {
            self.data.truncate(start);
            self.damaged = true;
        }
    }

    /// Whether nothing of a unit can precede this payload: it starts with a delimiter, a parameter set, or the first
    /// slice of a picture, whose first syntax element is 0 (H.264: `ue(v)`, H.265: a flag of value 1; both begin with
    /// a set bit).
    fn begins_unit(&self, payload: &[u8]) -> bool {
        let (header_bytes, head, body) = match (self.syntax, payload) {
            (Syntax::H264, [head, rest @ ..]) => (1, [*head, 0], rest),
            (Syntax::H265 { .. }, [head, second, rest @ ..]) => (2, [*head, *second], rest),
            _ => return false,
        };
        let kind = if header_bytes == 1 { head[0] & 0x1f } else { head[0] >> 1 & 0x3f };
        let first_slice = |body: &[u8]| body.first().is_some_and(|byte| byte & 0x80 != 0);
        match (self.syntax, kind) {
            // The first unit of an aggregate decides.
            (Syntax::H264, 24) => {
                body.get(2..).is_some_and(|nal| nal.first() != Some(&head[0]) && self.begins_unit(nal))
            }
            (Syntax::H265 { .. }, 48) => {
                body.get(2..).is_some_and(|nal| nal.first() != Some(&head[0]) && self.begins_unit(nal))
            }
            (Syntax::H264, 28) => body.first().is_some_and(|fu| fu & 0x80 != 0) && first_slice(&body[1..]),
            (Syntax::H265 { .. }, 49) => {
                body.first().is_some_and(|fu| fu & 0x80 != 0) && first_slice(&body[1..])
            }
            (Syntax::H264, 7 | 9) | (Syntax::H265 { .. }, 32 | 33 | 35) => true,
            (Syntax::H264, 1..=5) | (Syntax::H265 { .. }, 0..=31) => first_slice(body),
            _ => false,
        }
    }

    fn take(&mut self, payload: &[u8]) {
        match self.syntax {
            Syntax::H264 => self.take_h264(payload),
            Syntax::H265 { donl } => self.take_h265(payload, donl),
        }
    }

    fn take_h264(&mut self, payload: &[u8]) {
        let Some((&head, rest)) = payload.split_first() else { return };
        match head & 0x1f {
            1..=23 => self.whole(payload),
            24 => self.aggregate(rest, 0), // STAP-A, §5.7.1
            28 => {
                // FU-A, §5.8
                let Some((&fu, data)) = rest.split_first() else { return self.tear() };
                self.fragment(&[head & 0xe0 | fu & 0x1f], fu, data);
            }
            // STAP-B, MTAPs and FU-B belong to the interleaved mode; 0, 30 and 31 are undefined.
            _ => self.tear(),
        }
    }

    fn take_h265(&mut self, payload: &[u8], donl: bool) {
        let Some((&[head, second], rest)) = payload.split_first_chunk() else { return self.tear() };
        let don_bytes = if donl { 2 } else { 0 };
        match head >> 1 & 0x3f {
            // AP, §4.4.2: a DONL before the first unit, a DOND of one byte before each other one. `aggregated` skips
            // after the length, so the DON fields are taken out here.
            48 if donl => self.aggregate_with_don(rest),
            48 => self.aggregate(rest, 0),
            49 => {
                // FU, §4.4.3
                let Some((&fu, data)) = rest.split_first() else { return self.tear() };
                let data = if fu & 0x80 != 0 { data.get(don_bytes..) } else { Some(data) };
                let Some(data) = data else { return self.tear() };
                self.fragment(&[head & 0x81 | (fu & 0x3f) << 1, second], fu, data);
            }
            50.. => self.tear(), // PACI and undefined
            _ if donl => match rest.get(2..) {
                Some(body) => {
                    let start = self.begin(&[head, second]);
                    self.data.extend_from_slice(body);
                    self.end(start);
                }
                None => self.tear(),
            },
            _ => self.whole(payload),
        }
    }

    fn aggregate(&mut self, rest: &[u8], gap: usize) {
        let mut taken = 0;
        for nal in aggregated(rest, gap) {
            taken += 2 + gap + nal.len();
            if !nal.is_empty() {
                self.whole(nal);
            }
        }
        if taken != rest.len() {
            self.damaged = true;
        }
    }

    fn aggregate_with_don(&mut self, rest: &[u8]) {
        let mut rest = rest.get(2..).unwrap_or_default();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let Some((nal, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
                return self.tear();
            };
            self.whole(nal);
            rest = after.get(1..).unwrap_or_default();
        }
    }

    /// Something was not readable.
    fn tear(&mut self) {
        self.abandon_open();
        self.damaged = true;
    }

    fn whole(&mut self, nal: &[u8]) {
        // A fragment never ends by another unit's coming (§5.8): its end was lost.
        self.abandon_open();
        let role = self.role(nal);
        match role {
            Role::Vps | Role::Sps | Role::Pps => self.keep_set(role, nal),
            Role::Useless => {}
            Role::Key | Role::Other => {
                if self.fits(nal.len()) {
                    self.key |= role == Role::Key;
                    self.data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
                    self.data.extend_from_slice(nal);
                }
            }
        }
    }

    fn fragment(&mut self, header: &[u8], fu: u8, data: &[u8]) {
        let start = match (fu & 0x80 != 0, self.open) {
            (true, _) => {
                self.abandon_open();
                self.begin(header)
            }
            (false, Some(start)) => start,
            (false, None) => return self.damaged = true, // its start was lost
        };
        if !self.fits(data.len()) {
            return self.tear();
        }
        self.data.extend_from_slice(data);
        self.open = Some(start);
        if fu & 0x40 != 0 {
            self.open = None;
            self.end(start);
        }
    }

    fn begin(&mut self, header: &[u8]) -> usize {
        let start = self.data.len();
        self.data.extend_from_slice(&[0; NAL_LENGTH_BYTES]);
        self.data.extend_from_slice(header);
        start
    }

    /// The unit that began at `start` is complete.
    fn end(&mut self, start: usize) {
        let length = self.data.len() - start - NAL_LENGTH_BYTES;
        let role = self.role(&self.data[start + NAL_LENGTH_BYTES..]);
        match role {
            Role::Key | Role::Other => {
                self.key |= role == Role::Key;
                self.data[start..start + NAL_LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
            }
            Role::Useless => self.data.truncate(start),
            Role::Vps | Role::Sps | Role::Pps => {
                let nal = self.data.split_off(start);
                self.keep_set(role, &nal[NAL_LENGTH_BYTES..]);
            }
        }
    }

    fn fits(&mut self, more: usize) -> bool {
        let fits = self.data.len() + more + NAL_LENGTH_BYTES + 2 <= UNIT_BYTES_MAX;
        self.damaged |= !fits;
        fits
    }

    /// ITU-T H.264 table 7-1, ITU-T H.265 table 7-1.
    fn role(&self, nal: &[u8]) -> Role {
        let head = nal.first().copied().unwrap_or(0);
        match self.syntax {
            Syntax::H264 => match head & 0x1f {
                5 => Role::Key,
                7 => Role::Sps,
                8 => Role::Pps,
                0 | 9..=12 => Role::Useless,
                _ => Role::Other,
            },
            Syntax::H265 { .. } => match head >> 1 & 0x3f {
                _ if nal.len() < 2 => Role::Useless,
                16..=21 => Role::Key,
                32 => Role::Vps,
                33 => Role::Sps,
                34 => Role::Pps,
                35..=38 => Role::Useless,
                _ => Role::Other,
            },
        }
    }

    fn keep_set(&mut self, role: Role, nal: &[u8]) {
        if nal.len() > SET_BYTES_MAX {
            return;
        }
        let header_bytes = if self.syntax == Syntax::H264 { 1 } else { 2 };
        let slot = match role {
            Role::Vps => &mut self.sets.vps,
            Role::Sps => {
                if self.sets.sps != nal {
                    // Those of the old one say nothing about the new one; theirs follow it.
                    self.sets.pps.clear();
                }
                &mut self.sets.sps
            }
            _ => {
                let id = first_code(&nal[header_bytes..]);
                let known = self.sets.pps.iter().position(|pps| first_code(&pps[header_bytes..]) == id);
                let at = known.unwrap_or_else(|| {
                    self.sets.pps.truncate(PPS_MAX - 1);
                    self.sets.pps.push(Vec::new());
                    self.sets.pps.len() - 1
                });
                &mut self.sets.pps[at]
            }
        };
        if slot != nal {
            slot.clear();
            slot.extend_from_slice(nal);
            self.revision = self.revision.wrapping_add(1);
        }
    }
}

/// The leading `ue(v)` of a unit's payload, where it fits into three bytes: the identifier of a picture parameter set.
fn first_code(payload: &[u8]) -> u32 {
    let word = payload
        .iter()
        .take(4)
        .chain([0; 4].iter())
        .take(4)
        .fold(0, |word, &byte| word << 8 | u32::from(byte));
    let zeros = word.leading_zeros().min(15);
    (word << zeros >> (31 - zeros)) - u32::from(word != 0)
}

#[cfg(test)]
#[path = "nal_tests.rs"]
mod tests;
