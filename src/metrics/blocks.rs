//! Sorted rows in blocks, and each block's lines by family: what a change of a few rows leaves alone is not rendered again,
//! nor looked at. Never knows what a row is; compares rows, and texts.

use std::sync::Arc;

use crate::metrics::catalog::Family;
use crate::metrics::exposition::{Assembly, Content, Part, Segment, Stretch, Written};
use crate::metrics::text::{Format, Samples};

/// Rows of a block. Twice as many make the compressed whole 3 % smaller, and a change of ten cases in seven thousand, which
/// dirties ten blocks, 1.7 times as dear to compress.
const BLOCK_ROWS: usize = 24;

/// Blocks that are joined. Ten changed cases dirty ten stretches of each family, whose blocks are all looked at: with twice as
/// many, such a change costs a fifth more.
const STRETCH_BLOCKS: usize = 8;

/// Who reads uncompressed text gets about this much at a time: enough that calls do not count, and little for each of many
/// slow readers.
const WRITTEN_BYTES: usize = 32 * 1024;

/// How one family's samples are written for one kind of rows.
pub(crate) struct Column<R> {
    pub(crate) family: &'static Family,
    /// Whether its samples, not only its head, differ from one format to the other.
    pub(crate) varies: bool,
    pub(crate) write: fn(&mut Samples<'_>, &str, &R),
}

/// One kind of rows: they are sorted by their key, and each belongs to one source.
pub(crate) trait Row: Sized + 'static {
    /// What holds the rows of a source.
    type Shown: Send + Sync + 'static;
    /// The rows in it.
    fn rows(shown: &Self::Shown) -> &[Self];
    /// Whether it stands before another one.
    fn is_before(&self, other: &Self) -> bool;
    /// Whether it reads the same.
    fn is_like(&self, other: &Self) -> bool;
    /// Hands each row's labels, the source's included, to `use_labels`, in order.
    fn with_labels(rows: &[Self], source_labels: &str, use_labels: impl FnMut(&str));
    /// The families that are made of it.
    const COLUMNS: &'static [Column<Self>];
}

/// The labels of some rows.
#[derive(Debug)]
struct Labels {
    text: String,
    /// By row, where they end.
    ends: Vec<usize>,
}

impl Labels {
    fn of<R: Row>(rows: &[R], source_labels: &str) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(rows.len()));
        R::with_labels(rows, source_labels, |row| {
            text.push_str(row);
            ends.push(text.len());
        });
        Self { text, ends }
    }

    /// Appends a column's lines of the rows; gives how many samples there are.
    fn write<R: Row>(&self, rows: &[R], column: &Column<R>, format: Format, text: &mut String) -> u64 {
        let mut samples = Samples::new(text, column.family, format);
        let mut start = 0;
        for (row, end) in rows.iter().zip(&self.ends) {
            (column.write)(&mut samples, &self.text[start..*end], row);
            start = *end;
        }
        samples.count()
    }
}

/// One source's lines of a family, to be written from its rows.
struct Lines<R: Row> {
    shown: Arc<R::Shown>,
    source_labels: Arc<str>,
    column: &'static Column<R>,
    format: Format,
}

impl<R: Row> Written for Lines<R> {
    fn write(&self, from: usize, text: &mut String) -> Option<usize> {
        let rows = R::rows(&self.shown).get(from..)?;
        let mut place = from;
        for rows in rows.chunks(BLOCK_ROWS) {
            Labels::of(rows, &self.source_labels).write(rows, self.column, self.format, text);
            place += rows.len();
            if text.len() >= WRITTEN_BYTES {
                return Some(place);
            }
        }
        None
    }
}

/// Some neighbouring rows.
#[derive(Debug)]
struct Block {
    /// Another one whenever a row has changed.
    serial: u64,
    rows: usize,
    /// While lines are written.
    labels: Option<Labels>,
    /// By column and format.
    segments: Vec<[Segment; Format::ALL.len()]>,
}

impl Block {
    /// Of these rows, whose lines are not written yet.
    fn new<R: Row>(serial: u64, rows: &[R], mut segments: Vec<[Segment; Format::ALL.len()]>) -> Self {
        segments.resize_with(R::COLUMNS.len(), Default::default);
        Self {
            serial,
            rows: rows.len(),
            labels: None,
            segments,
        }
    }
}

/// Some neighbouring blocks, joined by column.
#[derive(Debug, Default)]
struct Joined {
    /// Of the blocks.
    serials: Vec<u64>,
    rows: usize,
    /// By column and format.
    stretches: Vec<[Stretch; Format::ALL.len()]>,
}

impl Joined {
    /// Forgets what it knows if these are not the blocks that it is made of.
    fn check<R: Row>(&mut self, blocks: &[Block]) {
        let serials = || blocks.iter().map(|block| block.serial);
        if self.serials.iter().copied().eq(serials()) {
            return;
        }
        self.serials = serials().collect();
        self.rows = blocks.iter().map(|block| block.rows).sum();
        self.stretches.resize_with(R::COLUMNS.len(), Default::default);
        let stretches = self.stretches.iter_mut().flatten();
        stretches.for_each(Stretch::forget);
    }
}

/// The rows of one kind and source, in blocks.
#[derive(Debug, Default)]
pub(crate) struct Table {
    blocks: Vec<Block>,
    joined: Vec<Joined>,
    /// How many blocks were rendered.
    serial: u64,
}

impl Table {
    /// Finds what is not the same in `new` as in `old`, of which the blocks are. Both are sorted. A row that was not there
    /// joins the block that it falls into, so one new case leaves the other blocks alone; a block that has grown too large is
    /// cut.
    pub(crate) fn update<R: Row>(&mut self, old: &[R], new: &[R]) {
        let blocks = std::mem::take(&mut self.blocks);
        let mut result = Vec::with_capacity(blocks.len());
        let (mut old_end, mut new_start) = (0, 0);
        for block in blocks {
            let was = &old[old_end..old_end + block.rows];
            old_end += block.rows;
            let now = new.get(new_start..new_start + block.rows);
            if now.is_some_and(|now| now.iter().zip(was).all(|(now, was)| now.is_like(was))) {
                new_start += block.rows;
                result.push(block);
                continue;
            }
            let rest = &new[new_start..];
            let count = match old.get(old_end) {
                Some(next) => rest.partition_point(|row| row.is_before(next)),
                None => rest.len(),
            };
            new_start += count;
            if count > 2 * BLOCK_ROWS {
                self.cut(&mut result, &rest[..count]);
            } else if count > 0 {
                self.serial += 1;
                result.push(Block::new(self.serial, &rest[..count], block.segments));
            }
        }
        self.cut(&mut result, &new[new_start..]);
        // After many rows have gone, the blocks that are left are too small to compress well.
        if result.len() > 2 * (new.len() / BLOCK_ROWS + 1) {
            result.clear();
            self.cut(&mut result, new);
        }
        self.blocks = result;
        self.joined
            .resize_with(self.blocks.len().div_ceil(STRETCH_BLOCKS), Joined::default);
        for (joined, blocks) in self.joined.iter_mut().zip(self.blocks.chunks(STRETCH_BLOCKS)) {
            joined.check::<R>(blocks);
        }
    }

    fn cut<R: Row>(&mut self, result: &mut Vec<Block>, rows: &[R]) {
        for rows in rows.chunks(BLOCK_ROWS) {
            self.serial += 1;
            result.push(Block::new(self.serial, rows, Vec::new()));
        }
    }

    /// Adds a column's lines; gives how many samples there are. The rows are those of the last update.
    pub(crate) fn push<R: Row>(
        &mut self,
        column: usize,
        format: Format,
        shown: &Arc<R::Shown>,
        source_labels: &Arc<str>,
        assembly: &mut Assembly<'_>,
    ) -> u64 {
        let mut rest = R::rows(shown);
        let (place, column) = (column, &R::COLUMNS[column]);
        let mut series = 0;
        assembly.push_content(Content::Written(Arc::new(Lines {
            shown: Arc::clone(shown),
            source_labels: Arc::clone(source_labels),
            column,
            format,
        })));
        let blocks = self.blocks.chunks_mut(STRETCH_BLOCKS);
        for (joined, blocks) in self.joined.iter_mut().zip(blocks) {
            let (mut rows, after) = rest.split_at(joined.rows);
            rest = after;
            let parts = blocks.iter_mut().map(|block| {
                let (of_block, after) = rows.split_at(block.rows);
                rows = after;
                let Block {
                    serial,
                    labels,
                    segments,
                    ..
                } = block;
                let [text, open_metrics] = &mut segments[place];
                let (segment, twin) = match format {
                    Format::Text => (text, &*open_metrics),
                    Format::OpenMetrics => (open_metrics, &*text),
                };
                Part {
                    segment,
                    twin: Some(twin),
                    is_twin: !column.varies,
                    serial: *serial,
                    write: move |text: &mut String| {
                        let labels = labels.get_or_insert_with(|| Labels::of(of_block, source_labels));
                        labels.write(of_block, column, format, text)
                    },
                }
            });
            series += assembly.push(&mut joined.stretches[place][format as usize], parts);
        }
        series
    }

    /// All lines are written.
    pub(crate) fn written(&mut self) {
        for block in &mut self.blocks {
            block.labels = None;
        }
    }

    /// Nobody asks for a format compressed any more.
    pub(crate) fn unpack(&mut self, format: Format) {
        let segments = self.blocks.iter_mut().flat_map(|block| &mut block.segments);
        segments.for_each(|segments| segments[format as usize].unpack());
        let stretches = self.joined.iter_mut().flat_map(|joined| &mut joined.stretches);
        stretches.for_each(|stretches| stretches[format as usize].unpack());
    }
}
