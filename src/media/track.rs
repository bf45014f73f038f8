//! One track of a stream, as its source announced it.

/// What a media section carries (RFC 8866 §5.14, `<media>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
    Application,
}

impl Kind {
    /// The `<media>` word of an `m=` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Application => "application",
        }
    }
}

/// The codecs that have a name in MediaMTX's API. Everything else is [`Codec::Generic`] and is relayed as it
/// is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Av1,
    Vp9,
    Vp8,
    H265,
    H264,
    Mpeg4Video,
    Mpeg12Video,
    Mjpeg,
    Opus,
    Flac,
    Vorbis,
    Mpeg4Audio,
    Mpeg4AudioLatm,
    Mpeg12Audio,
    Ac3,
    Speex,
    G726,
    G722,
    G711,
    Lpcm,
    MpegTs,
    Klv,
    Generic,
}

impl Codec {
    /// The name operators see in the API and in logs, spelt as MediaMTX spells it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Av1 => "AV1",
            Self::Vp9 => "VP9",
            Self::Vp8 => "VP8",
            Self::H265 => "H265",
            Self::H264 => "H264",
            Self::Mpeg4Video => "MPEG-4 Video",
            Self::Mpeg12Video => "MPEG-1/2 Video",
            Self::Mjpeg => "M-JPEG",
            Self::Opus => "Opus",
            Self::Flac => "FLAC",
            Self::Vorbis => "Vorbis",
            Self::Mpeg4Audio => "MPEG-4 Audio",
            Self::Mpeg4AudioLatm => "MPEG-4 Audio LATM",
            Self::Mpeg12Audio => "MPEG-1/2 Audio",
            Self::Ac3 => "AC3",
            Self::Speex => "Speex",
            Self::G726 => "G726",
            Self::G722 => "G722",
            Self::G711 => "G711",
            Self::Lpcm => "LPCM",
            Self::MpegTs => "MPEG-TS",
            Self::Klv => "KLV",
            Self::Generic => "Generic",
        }
    }
}

/// A track: one payload type of one media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    pub kind: Kind,
    pub codec: Codec,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// RTP timestamp ticks per second; never zero in a parsed track.
    pub clock_rate: u32,
    /// Channel count of audio, when the description states or implies one.
    pub channels: Option<u8>,
    /// Encoding name of `a=rtpmap` as written; may be empty for static payload types.
    pub encoding: String,
    /// Format parameters as written in `a=fmtp`, after the payload type; may be empty.
    pub fmtp: String,
    /// `a=control` as announced; may be empty.
    pub control: String,
}
