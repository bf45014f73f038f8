//! Compresses the files for browsers once, so that no shard ever does.

use std::{env, error::Error, fs, io::Write, path::Path};

use flate2::{Compression, GzBuilder};

const PAGES: &str = "src/shard/web/pages";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    for name in ["hls.html", "hls.min.js"] {
        let file = Path::new(PAGES).join(name);
        println!("cargo::rerun-if-changed={}", file.display());
        // No name and no time in it: the same file gives the same bytes everywhere.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&fs::read(&file)?)?;
        fs::write(Path::new(&out).join(format!("{name}.gz")), gzip.finish()?)?;
    }
    Ok(())
}
