//! From a snapshot to exposition text, and the exporter's own health. The only room that names the prometheus crate.
//! Never asks a platform, never changes a count.
