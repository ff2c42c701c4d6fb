//! What is shown: the table of every metric, the text of a snapshot, and the exporter's own health.
//! Never counts what a platform told (`store` does), never decides when to show it (`app` does).
//!
//! An exposition is the text of the snapshot, rendered and compressed once per change, followed by the text of our own
//! health. No family is in both: the catalog says which half a family belongs to.

mod blocks;
pub mod catalog;
pub mod ends;
pub mod exposition;
pub mod own;
pub mod render;
mod text;

pub use text::Format;
