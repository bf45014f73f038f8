//! Sessions as a whole: with servers as they are, with our own, and with servers that mean harm.

mod hostile;
mod pair;
mod transcripts;
