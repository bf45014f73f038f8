//! Descriptions in the dialects of real cameras and publishers, and malformed ones. The files in `fixtures/` were written
//! for these tests after what is known of each maker; their addresses are those of RFC 5737.

use corecast_media::codec::{h264, h265};
use corecast_media::{Codec, Kind, Track};

use super::parse::{BACK_CHANNEL, BYTES_MAX, MEDIAS_MAX};
use super::{Options, SdpError, fmtp, parse, parse_with, write};

/// Codec, payload type, clock rate, channels, control.
type Expected = (Codec, u8, u32, Option<u8>, &'static str);

/// Name and text of a fixture.
type Fixture = (&'static str, &'static [u8]);

macro_rules! fixture {
    ($name:literal) => {
        ($name, include_bytes!(concat!("fixtures/", $name, ".sdp")).as_slice())
    };
}

fn summary(track: &Track) -> (Codec, u8, u32, Option<u8>, &str) {
    (track.codec, track.payload_type, track.clock_rate, track.channels, &track.control)
}

#[test]
fn every_camera_and_publisher_gives_its_tracks() {
    use Codec::*;
    let cases: &[(Fixture, &[Expected], usize)] = &[
        (
            fixture!("hikvision_ds2cd"),
            &[
                (H264, 96, 90_000, None, "rtsp://192.0.2.64:554/Streaming/Channels/101/trackID=1"),
                (G711, 8, 8_000, Some(1), "rtsp://192.0.2.64:554/Streaming/Channels/101/trackID=2"),
            ],
            0,
        ),
        (
            fixture!("hikvision_h265_metadata"),
            &[
                (H265, 96, 90_000, None, "trackID=1"),
                (Mpeg4Audio, 104, 16_000, Some(1), "trackID=2"),
                (Generic, 107, 90_000, None, "trackID=3"),
            ],
            0,
        ),
        (
            fixture!("dahua_ipc_hfw"),
            &[(H265, 98, 90_000, None, "trackID=0"), (Mpeg4Audio, 97, 48_000, Some(2), "trackID=1")],
            0,
        ),
        (
            fixture!("dahua_onvif_back_channel"),
            &[
                (H264, 96, 90_000, None, "trackID=0"),
                (G711, 8, 8_000, Some(1), "trackID=1"),
                (Generic, 107, 90_000, None, "trackID=4"),
            ],
            1,
        ),
        (
            fixture!("axis_p32"),
            &[
                (
                    H264,
                    96,
                    90_000,
                    None,
                    "rtsp://192.0.2.90:554/axis-media/media.amp/stream=0?videocodec=h264",
                ),
                (
                    Mpeg4Audio,
                    97,
                    16_000,
                    Some(1),
                    "rtsp://192.0.2.90:554/axis-media/media.amp/stream=1?videocodec=h264",
                ),
            ],
            0,
        ),
        (fixture!("axis_mjpeg"), &[(Mjpeg, 26, 90_000, None, "stream=0")], 0),
        (
            fixture!("reolink_rlc"),
            &[(H264, 96, 90_000, None, "track1"), (Mpeg4Audio, 97, 16_000, Some(1), "track2")],
            0,
        ),
        (
            fixture!("tplink_tapo"),
            &[(H264, 96, 90_000, None, "track1"), (G711, 8, 8_000, Some(1), "track2")],
            1,
        ),
        (
            fixture!("foscam_fi"),
            &[(H264, 96, 90_000, None, "track1"), (G711, 0, 8_000, Some(1), "track2")],
            0,
        ),
        (
            fixture!("milestone_bridge"),
            &[(H264, 96, 90_000, None, "trackID=0"), (G711, 0, 8_000, Some(1), "trackID=1")],
            0,
        ),
        (
            fixture!("bosch_flexidome"),
            &[
                (H264, 35, 90_000, None, "rtsp://192.0.2.40/trackID=1"),
                (Lpcm, 98, 16_000, Some(1), "rtsp://192.0.2.40/trackID=2"),
                (Generic, 99, 90_000, None, "rtsp://192.0.2.40/trackID=3"),
            ],
            0,
        ),
        (
            fixture!("uniview_ipc"),
            &[
                (H264, 105, 90_000, None, "rtsp://192.0.2.13/media/video1/video"),
                (G711, 0, 8_000, Some(1), "rtsp://192.0.2.13/media/video1/audio1"),
                (Generic, 107, 90_000, None, "rtsp://192.0.2.13/media/video1/metadata"),
            ],
            0,
        ),
        (
            fixture!("vivotek_mpeg4"),
            &[(Mpeg4Video, 96, 90_000, None, "trackID=1"), (Mpeg4Audio, 97, 16_000, Some(2), "trackID=3")],
            0,
        ),
        (
            fixture!("geovision_short_origin"),
            &[(H264, 96, 90_000, None, "0"), (Mpeg12Audio, 14, 90_000, None, "1")],
            1,
        ),
        (
            fixture!("dvr_opus_av1"),
            &[(Av1, 45, 90_000, None, "video"), (Opus, 111, 48_000, Some(2), "audio")],
            2,
        ),
        (
            fixture!("ffmpeg_announce"),
            &[(H264, 96, 90_000, None, "streamid=0"), (Mpeg4Audio, 97, 48_000, Some(2), "streamid=1")],
            0,
        ),
        (fixture!("gstreamer_announce"), &[(H264, 96, 90_000, None, "stream=0")], 0),
        (fixture!("live555_mpegts"), &[(MpegTs, 33, 90_000, None, "track1")], 0),
    ];
    for ((name, text), tracks, skipped) in cases {
        let description = parse(text).unwrap();
        assert_eq!(description.tracks.iter().map(summary).collect::<Vec<_>>(), *tracks, "{name}");
        assert_eq!(description.skipped.len(), *skipped, "{name}: {:?}", description.skipped);
    }
}

#[test]
fn parameter_sets_of_every_camera_decode() {
    for (_, text) in [
        fixture!("hikvision_ds2cd"),
        fixture!("dahua_onvif_back_channel"),
        fixture!("axis_p32"),
        fixture!("tplink_tapo"), // with start codes
        fixture!("ffmpeg_announce"),
    ] {
        let track = &parse(text).unwrap().tracks[0];
        let sets = fmtp::parameter_sets(&track.fmtp, "sprop-parameter-sets");
        assert_eq!(sets.len(), 2);
        assert_eq!(h264::Sps::parse(&sets[0]).unwrap().width, 640);
    }
    for (_, text) in [fixture!("hikvision_h265_metadata"), fixture!("dahua_ipc_hfw")] {
        let track = &parse(text).unwrap().tracks[0];
        let sets = fmtp::parameter_sets(&track.fmtp, "sprop-sps");
        assert_eq!(h265::Sps::parse(&sets[0]).unwrap().width, 2560);
    }
}

#[test]
fn back_channel_is_kept_only_when_asked_for() {
    let (_, text) = fixture!("dahua_onvif_back_channel");
    let skipped = parse(text).unwrap().skipped;
    assert_eq!((skipped[0].line, skipped[0].reason), (21, BACK_CHANNEL));
    let all = parse_with(text, Options { keep_back_channels: true }).unwrap();
    assert_eq!(all.skipped, []);
    assert_eq!(summary(&all.tracks[3]), (Codec::G711, 0, 8_000, Some(1), "trackID=5"));
}

#[test]
fn video_marked_sendonly_is_what_the_camera_sends() {
    let description = parse(b"m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=sendonly\n").unwrap();
    assert_eq!(description.tracks.len(), 1);
}

#[test]
fn session_level_fields_are_kept() {
    let description = parse(fixture!("hikvision_ds2cd").1).unwrap();
    assert_eq!(description.title, "Media Presentation");
    assert_eq!(description.session_control.as_deref(), Some("rtsp://192.0.2.64:554/Streaming/Channels/101/"));
    assert_eq!(parse(fixture!("geovision_short_origin").1).unwrap().title, "");
    assert_eq!(parse(b"s=caf\xe9\nm=audio 0 RTP/AVP 0\n").unwrap().title, "caf\u{fffd}");
}

#[test]
fn one_broken_media_does_not_cost_the_others() {
    for broken in [
        "m=",
        "m=video",
        "m=video 0 RTP/AVP",
        "m=video 0 RTP/AVP 96",
        "m=video 0 RTP/AVP x 300 -1",
        "m=video 0 TCP 96\na=rtpmap:96 H264/90000",
        "m=hologram 0 RTP/AVP 96\na=rtpmap:96 H264/90000",
        "m=video 0 RTP/AVP 96\na=rtpmap:96",
        "m=video 0 RTP/AVP 96\na=rtpmap:96 /90000",
        "m=video 0 RTP/AVP 96\na=rtpmap:96 UNKNOWN",
        "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/0",
        "m=video 0 RTP/AVP 96\na=rtpmap:999 H264/90000",
    ] {
        let text = format!("v=0\n{broken}\nm=audio 0 RTP/AVP 8\n");
        let description = parse(text.as_bytes()).unwrap();
        assert_eq!(description.tracks.len(), 1, "{broken}");
        assert_eq!(description.tracks[0].codec, Codec::G711);
        assert_eq!(description.skipped[0].line, 2);
    }
}

#[test]
fn first_payload_type_known_by_name_wins() {
    let text = "m=audio 0 RTP/AVP 110 111 0\na=rtpmap:110 x-new/16000\na=rtpmap:111 OPUS/48000/2\n";
    assert_eq!(parse(text.as_bytes()).unwrap().tracks[0].payload_type, 111);
    let text = "m=audio 0 RTP/AVP 110 111\na=rtpmap:110 x-new/16000\na=rtpmap:111 x-newer/48000/2\n";
    let track = &parse(text.as_bytes()).unwrap().tracks[0];
    assert_eq!((track.codec, track.payload_type, track.encoding.as_str()), (Codec::Generic, 110, "x-new"));
}

#[test]
fn bounds_are_enforced_at_their_values() {
    assert_eq!(parse(b""), Err(SdpError::NoMedia));
    assert_eq!(parse(b"v=0\r\ns=x\r\n"), Err(SdpError::NoMedia));
    let medias = |count| "m=audio 0 RTP/AVP 0\n".repeat(count);
    assert_eq!(parse(medias(MEDIAS_MAX).as_bytes()).unwrap().tracks.len(), MEDIAS_MAX);
    assert_eq!(parse(medias(MEDIAS_MAX + 1).as_bytes()), Err(SdpError::TooManyMedias));
    let mut long = medias(1).into_bytes();
    long.resize(BYTES_MAX, b'\n');
    assert!(parse(&long).is_ok());
    long.push(b'\n');
    assert_eq!(parse(&long), Err(SdpError::TooLong));
}

#[test]
fn description_is_written_in_mediamtx_layout() {
    let description = parse(fixture!("ffmpeg_announce").1).unwrap();
    let want = [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=No Name",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=control:trackID=0",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1; profile-level-id=4D401E; \
         sprop-parameter-sets=Z01AHtoCgL/lwEQAAAMABAAAAwDIPFi6gA==,aO88gA==",
        "m=audio 0 RTP/AVP 97",
        "a=control:trackID=1",
        "a=rtpmap:97 mpeg4-generic/48000/2",
        "a=fmtp:97 config=119056E500; indexdeltalength=3; indexlength=3; mode=AAC-hbr; profile-level-id=1; \
         sizelength=13; streamtype=5",
        "",
    ];
    assert_eq!(write(&description.title, &description.tracks), want.join("\r\n"));
}

#[test]
fn tracks_without_rtpmap_or_parameters_are_written_whole() {
    let text = "m=audio 0 RTP/AVP 0\nm=audio 0 RTP/AVP 10\nm=video 0 RTP/AVP 26\nm=video 0 RTP/AVP 96\n\
                a=rtpmap:96 hevc/90000\nm=application 0 RTP/AVP 107\na=rtpmap:107 vnd.onvif.metadata/90000\n\
                a=fmtp:107 DecoderTag=h3c-v3 RTCP=0\n";
    let written = write("", &parse(text.as_bytes()).unwrap().tracks);
    let lines: Vec<_> = written.lines().filter(|line| !line.starts_with("a=control")).skip(2).collect();
    let want = [
        "s= ",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=audio 0 RTP/AVP 0",
        "a=rtpmap:0 PCMU/8000",
        "m=audio 0 RTP/AVP 10",
        "a=rtpmap:10 L16/44100/2",
        "m=video 0 RTP/AVP 26",
        "a=rtpmap:26 JPEG/90000",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H265/90000",
        "m=application 0 RTP/AVP 107",
        "a=rtpmap:107 vnd.onvif.metadata/90000",
        "a=fmtp:107 DecoderTag=h3c-v3 RTCP=0",
    ];
    assert_eq!(lines, want);
}

#[test]
fn h264_is_offered_with_packetization_mode_1() {
    let tracks = parse(fixture!("milestone_bridge").1).unwrap().tracks;
    assert!(write("", &tracks).contains("a=fmtp:96 packetization-mode=1\r\n"));
}

#[test]
fn title_cannot_forge_a_line() {
    let track = parse(b"m=audio 0 RTP/AVP 0\n").unwrap().tracks;
    assert!(write("a\r\nm=video 0 RTP/AVP 96", &track).contains("s=am=video 0 RTP/AVP 96\r\n"));
    assert!(write("x \0\u{1b}", &track).contains("s=x\r\n"));
    assert_eq!(track[0].kind, Kind::Audio);
}
