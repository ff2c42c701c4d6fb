//! Sorted rows in blocks, and each block's lines by family: what a change of a few rows leaves alone is not rendered again,
//! nor looked at. Never knows what a row is; compares rows, and texts.

use crate::metrics::catalog::Family;
use crate::metrics::exposition::{Assembly, Segment, Stretch};
use crate::metrics::text::{Format, Samples};

/// Rows of a block. Twice as many make the compressed whole 3 % smaller, and a change of ten cases in seven thousand, which
/// dirties ten blocks, 1.7 times as dear to compress.
const BLOCK_ROWS: usize = 24;

/// Blocks that are joined. Ten changed cases dirty ten stretches, whose blocks are all looked at; with half as many, putting
/// an exposition together from twice as many stretches costs what that saves.
const STRETCH_BLOCKS: usize = 16;

/// How one family's samples are written for one kind of rows.
pub(crate) struct Column<R> {
    pub(crate) family: &'static Family,
    /// Whether its samples, not only its head, differ from one format to the other.
    pub(crate) varies: bool,
    pub(crate) write: fn(&mut Samples<'_>, &str, &R),
}

/// One kind of rows: they are sorted by their key, and each belongs to one source.
pub(crate) trait Row: Sized + 'static {
    /// Whether it stands before another one.
    fn is_before(&self, other: &Self) -> bool;
    /// Whether it reads the same.
    fn is_like(&self, other: &Self) -> bool;
    /// Hands each row's labels, the source's included, to `use_labels`, in order.
    fn with_labels(rows: &[Self], source_labels: &str, use_labels: impl FnMut(&str));
    /// The families that are made of it.
    const COLUMNS: &'static [Column<Self>];
}

/// Some neighbouring rows.
#[derive(Debug)]
struct Block {
    /// Another one whenever it is rendered.
    serial: u64,
    rows: usize,
    /// By column.
    lines: Vec<Lines>,
}

/// One family's lines of a block.
#[derive(Debug, Default)]
struct Lines {
    text: Segment,
    open_metrics: Segment,
}

impl Block {
    /// The lines of these rows. What reads as before is kept, with its compressed piece.
    fn render<R: Row>(serial: u64, rows: &[R], source_labels: &str, mut known: Vec<Lines>) -> Self {
        known.resize_with(R::COLUMNS.len(), Lines::default);
        let mut labels = Vec::with_capacity(rows.len());
        let mut all_labels = String::new();
        R::with_labels(rows, source_labels, |row| {
            let start = all_labels.len();
            all_labels.push_str(row);
            labels.push(start..all_labels.len());
        });
        let mut text = String::new();
        let mut write = |column: &Column<R>, format: Format, segment: &mut Segment| {
            text.clear();
            let mut samples = Samples::new(&mut text, column.family, format);
            for (row, place) in rows.iter().zip(&labels) {
                (column.write)(&mut samples, &all_labels[place.clone()], row);
            }
            let series = samples.count();
            if segment.text != text.as_bytes() {
                *segment = Segment::new(text.clone(), series);
            }
        };
        for (column, lines) in R::COLUMNS.iter().zip(&mut known) {
            write(column, Format::Text, &mut lines.text);
            if column.varies {
                write(column, Format::OpenMetrics, &mut lines.open_metrics);
            }
            if !column.varies || lines.open_metrics.text == lines.text.text {
                // One copy of the text will do.
                lines.open_metrics = lines.text.clone();
            }
        }
        Self {
            serial,
            rows: rows.len(),
            lines: known,
        }
    }
}

/// Some neighbouring blocks, joined by column.
#[derive(Debug, Default)]
struct Joined {
    /// Of the blocks.
    serials: Vec<u64>,
    columns: Vec<JoinedColumn>,
}

#[derive(Debug, Default)]
struct JoinedColumn {
    series: u64,
    /// By format.
    stretches: [Stretch; Format::ALL.len()],
}

impl Joined {
    /// Forgets what it knows if these are not the blocks that it is made of.
    fn check<R: Row>(&mut self, blocks: &[Block]) {
        let serials = || blocks.iter().map(|block| block.serial);
        if self.serials.iter().copied().eq(serials()) {
            return;
        }
        self.serials = serials().collect();
        let column = |column: usize| JoinedColumn {
            series: blocks.iter().map(|block| block.lines[column].text.series).sum(),
            ..JoinedColumn::default()
        };
        self.columns = (0..R::COLUMNS.len()).map(column).collect();
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
    /// Renders what is not the same in `new` as in `old`, of which the blocks are. Both are sorted. A row that was not there
    /// joins the block that it falls into, so one new case leaves the other blocks alone; a block that has grown too large is
    /// cut.
    pub(crate) fn update<R: Row>(&mut self, old: &[R], new: &[R], source_labels: &str) {
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
                self.render(&mut result, &rest[..count], source_labels);
            } else if count > 0 {
                self.serial += 1;
                let rows = &rest[..count];
                result.push(Block::render(self.serial, rows, source_labels, block.lines));
            }
        }
        self.render(&mut result, &new[new_start..], source_labels);
        // After many rows have gone, the blocks that are left are too small to compress well.
        if result.len() > 2 * (new.len() / BLOCK_ROWS + 1) {
            result.clear();
            self.render(&mut result, new, source_labels);
        }
        self.blocks = result;
        self.joined
            .resize_with(self.blocks.len().div_ceil(STRETCH_BLOCKS), Joined::default);
        for (joined, blocks) in self.joined.iter_mut().zip(self.blocks.chunks(STRETCH_BLOCKS)) {
            joined.check::<R>(blocks);
        }
    }

    fn render<R: Row>(&mut self, result: &mut Vec<Block>, rows: &[R], source_labels: &str) {
        for rows in rows.chunks(BLOCK_ROWS) {
            self.serial += 1;
            result.push(Block::render(self.serial, rows, source_labels, Vec::new()));
        }
    }

    /// The series of a column.
    pub(crate) fn series(&self, column: usize) -> u64 {
        self.joined.iter().map(|joined| joined.columns[column].series).sum()
    }

    /// Adds a column's lines.
    pub(crate) fn push(&mut self, column: usize, format: Format, assembly: &mut Assembly<'_>) {
        let blocks = self.blocks.chunks_mut(STRETCH_BLOCKS);
        for (joined, blocks) in self.joined.iter_mut().zip(blocks) {
            let stretch = &mut joined.columns[column].stretches[format as usize];
            let segments = blocks.iter_mut().map(|block| {
                let Lines { text, open_metrics } = &mut block.lines[column];
                match format {
                    Format::Text => (text, None),
                    Format::OpenMetrics => (open_metrics, Some(&*text)),
                }
            });
            assembly.push(stretch, segments);
        }
    }
}
