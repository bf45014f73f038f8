//! The player page and the library that it loads, held as they go over the wire, plain and compressed (`build.rs`).
//!
//! `hls.min.js` is hls.js 1.6.19 as its makers publish it, with its licence beside it. 1.7.4 leaves out a part when the
//! segment it joined in becomes complete while its first parts are parsed, and stands still for a second or two.

use bytes::Bytes;

/// A file for browsers.
#[derive(Debug, Clone)]
pub struct Page {
    pub content_type: &'static str,
    pub cache_control: &'static str,
    /// A strong tag of the content, in its quotes; that of the compressed form differs.
    pub etag: String,
    pub etag_gzip: String,
    pub body: Bytes,
    /// The same as RFC 1952 has it, for clients that accept `gzip`.
    pub gzip: Bytes,
}

const CACHE_CONTROL: &str = "max-age=3600";

/// What the page asks for beside itself.
pub const LIBRARY_NAME: &str = "hls.min.js";

/// For `/{path}/`.
pub fn player() -> Page {
    let gzip = include_bytes!(concat!(env!("OUT_DIR"), "/hls.html.gz"));
    of("text/html; charset=utf-8", include_bytes!("hls.html"), gzip)
}

/// What it plays with: hls.js.
pub fn library() -> Page {
    let gzip = include_bytes!(concat!(env!("OUT_DIR"), "/hls.min.js.gz"));
    of("text/javascript; charset=utf-8", include_bytes!("hls.min.js"), gzip)
}

fn of(content_type: &'static str, body: &'static [u8], gzip: &'static [u8]) -> Page {
    // RFC 1952 §2.3.1: the last eight bytes are the CRC-32 and the length of what was compressed.
    let sum: String = gzip[gzip.len() - 8..].iter().map(|byte| format!("{byte:02x}")).collect();
    Page {
        content_type,
        cache_control: CACHE_CONTROL,
        etag: format!("\"{sum}\""),
        etag_gzip: format!("\"{sum}-gzip\""),
        body: Bytes::from_static(body),
        gzip: Bytes::from_static(gzip),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn text(page: Page) -> String {
        String::from_utf8(page.body.to_vec()).unwrap()
    }

    #[test]
    fn the_compressed_form_is_the_plain_one_and_small() {
        for page in [player(), library()] {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&page.gzip[..]).read_to_end(&mut plain).unwrap();
            assert!(plain == page.body, "{}", page.content_type);
            assert!(
                page.gzip.len() * 2 < page.body.len(),
                "{}: {} bytes",
                page.content_type,
                page.gzip.len()
            );
        }
    }

    #[test]
    fn files_have_tags_of_their_own() {
        let pages = [player(), library()];
        let mut tags: Vec<_> = pages.iter().flat_map(|page| [&page.etag, &page.etag_gzip]).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 4);
        assert!(tags.iter().all(|tag| tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"')));
    }

    /// An appliance has no internet, and a page that is fetched from elsewhere tells others who watches.
    #[test]
    fn the_player_page_fetches_nothing_from_elsewhere() {
        let html = text(player());
        assert!(html.contains("<script src=\"hls.min.js\">"));
        for foreign in ["http:", "https:", "src=\"//", "@import"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        assert!(html.len() < 16_384, "{} bytes", html.len());
    }

    #[test]
    fn the_library_is_the_release_that_its_licence_was_taken_from() {
        assert!(text(library()).contains("\"1.6.19\""));
        assert!(include_str!("hls.js.LICENSE").contains("Apache License, Version 2.0"));
    }
}
