//! Who brings media in: [`publication`] is what all of them feed, [`rtsp_publish`] an encoder that records to us,
//! [`demo`] the built-in camera.

pub mod demo;
pub mod publication;
pub mod rtsp_publish;
