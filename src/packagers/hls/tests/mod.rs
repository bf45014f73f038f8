//! What the tests of HLS share: a source that sends RTP, and a watcher that fetches all that a player could and has it
//! judged by [`super::check`].

mod faults;
mod golden;
mod media;
mod presentation;
mod simulate;
mod support;
