//! Reports of usage: what may be asked, and what is answered, whatever the format and the way it is asked.
//!
//! A report is read page by page, so that it takes the same memory however many lines it has. Who may ask, and how an
//! answer travels, is the interface's to know.

pub mod cursor;
pub mod datagram;
pub mod desk;
pub mod format;
pub mod groups;
pub mod lines;
pub mod log;
mod parameters;
pub mod query;
pub mod source;
pub mod stream;
pub mod summary;
mod terms;
pub mod zone;
