//! A publisher that records to us over TCP: what lies between its packets.

use corecast_proto::rtsp::{Limits, MessageError, Parsed, Request, parse_request};

use super::in_place::{Between, Reading};

/// Why a publisher's bytes cannot be understood any further.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("neither a packet nor a request between packets: {0}")]
    Garbage(#[from] MessageError),
}

/// How a publisher's bytes are read: requests lie between the packets.
#[derive(Debug)]
pub struct Requests<'limits>(pub &'limits Limits);

impl Reading for Requests<'_> {
    type Message = Request;
    type Error = IngestError;

    fn between(&mut self, bytes: &[u8]) -> Result<Between<Request>, IngestError> {
        Ok(match parse_request(bytes, self.0)? {
            Parsed::Incomplete => Between::Incomplete,
            Parsed::Complete { value, consumed } => Between::Message { value, consumed },
        })
    }
}
