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
    /// Whether the samples of these rows, not only the head, differ from one format to the other.
    pub(crate) varies: fn(&[R]) -> bool,
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
    /// cut, and one that has become small joins the one before.
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
                self.add(&mut result, block, &new[..new_start]);
                continue;
            }
            let rest = &new[new_start..];
            let count = match old.get(old_end) {
                Some(next) => rest.partition_point(|row| row.is_before(next)),
                None => rest.len(),
            };
            new_start += count;
            if count > 2 * BLOCK_ROWS {
                self.cut(&mut result, &new[..new_start], count);
            } else if count > 0 {
                self.serial += 1;
                let block = Block::new(self.serial, &rest[..count], block.segments);
                self.add(&mut result, block, &new[..new_start]);
            }
        }
        self.cut(&mut result, new, new.len() - new_start);
        self.blocks = result;
        self.joined
            .resize_with(self.blocks.len().div_ceil(STRETCH_BLOCKS), Joined::default);
        for (joined, blocks) in self.joined.iter_mut().zip(self.blocks.chunks(STRETCH_BLOCKS)) {
            joined.check::<R>(blocks);
        }
    }

    /// Adds the last `count` of these rows as new blocks.
    fn cut<R: Row>(&mut self, result: &mut Vec<Block>, rows: &[R], count: usize) {
        let mut end = rows.len() - count;
        for some in rows[end..].chunks(BLOCK_ROWS) {
            end += some.len();
            self.serial += 1;
            let block = Block::new(self.serial, some, Vec::new());
            self.add(result, block, &rows[..end]);
        }
    }

    /// Adds a block, to which the last of these rows belong. If the one before has room for them, they go there: no two
    /// neighbours are as small together as one block, so rows that come and go one by one do not make more and smaller blocks
    /// in the long run, which cost room and compress worse.
    fn add<R: Row>(&mut self, result: &mut Vec<Block>, block: Block, rows: &[R]) {
        match result.last_mut() {
            Some(last) if last.rows + block.rows <= BLOCK_ROWS => {
                let first = rows.len() - last.rows - block.rows;
                self.serial += 1;
                *last = Block::new(self.serial, &rows[first..], std::mem::take(&mut last.segments));
            }
            _ => result.push(block),
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
                    is_twin: !(column.varies)(of_block),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as its two numbers.
    #[derive(Debug, Clone, PartialEq)]
    struct Pair(u32, u32);

    impl Row for Pair {
        type Shown = Vec<Self>;

        fn rows(shown: &Vec<Self>) -> &[Self] {
            shown
        }

        fn is_before(&self, other: &Self) -> bool {
            self.0 < other.0
        }

        fn is_like(&self, other: &Self) -> bool {
            self == other
        }

        fn with_labels(rows: &[Self], _: &str, mut use_labels: impl FnMut(&str)) {
            rows.iter().for_each(|_| use_labels(""));
        }

        const COLUMNS: &'static [Column<Self>] = &[];
    }

    /// Blocks are as long as the rows, none is too large, and no two neighbours would fit into one.
    fn check(table: &Table, rows: usize) {
        let sizes: Vec<_> = table.blocks.iter().map(|block| block.rows).collect();
        assert_eq!(sizes.iter().sum::<usize>(), rows, "{sizes:?}");
        assert!(
            sizes.iter().all(|size| (1..=2 * BLOCK_ROWS).contains(size)),
            "{sizes:?}"
        );
        let fit = |pair: &[usize]| pair[0] + pair[1] <= BLOCK_ROWS;
        assert!(!sizes.windows(2).any(fit), "{sizes:?}");
        assert_eq!(table.joined.len(), sizes.len().div_ceil(STRETCH_BLOCKS));
        let serials = table.joined.iter().flat_map(|joined| &joined.serials);
        assert!(serials.eq(table.blocks.iter().map(|block| &block.serial)));
    }

    #[test]
    fn rows_that_are_renamed_one_by_one_in_the_course_of_a_year_do_not_make_more_blocks() {
        const ROWS: u32 = 2_400;
        let mut table = Table::default();
        let mut rows: Vec<_> = (ROWS..2 * ROWS).map(|row| Pair(row, 0)).collect();
        table.update(&[], &rows);
        let at_first = table.blocks.len();
        for row in (0..ROWS).step_by(2) {
            let old = rows.clone();
            rows.retain(|known| known.0 != ROWS + row);
            rows.insert(rows.partition_point(|known| known.0 < row), Pair(row, 0));
            table.update(&old, &rows);
            check(&table, rows.len());
        }
        let now = table.blocks.len();
        assert!(now <= at_first * 5 / 4, "{now} after {at_first}");
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_blocks_stay_near_their_size_and_what_is_the_same_stays(
            steps in proptest::collection::vec(
                (0_u32..500, 0_u32..500, 1_usize..20, 0_u32..3), 1..20),
        ) {
            let mut table = Table::default();
            let mut rows: Vec<Pair> = Vec::new();
            for (from, to, step, value) in steps {
                let old = rows.clone();
                let (from, to) = (from.min(to), from.max(to));
                rows.retain(|row| !(from..to).contains(&row.0));
                if value > 0 {
                    rows.extend((from..to).step_by(step).map(|row| Pair(row, value)));
                    rows.sort_by_key(|row| row.0);
                }
                table.update(&old, &rows);
                check(&table, rows.len());
                let serials: Vec<_> = table.blocks.iter().map(|block| block.serial).collect();
                table.update(&rows, &rows.clone());
                prop_assert!(serials.iter().eq(table.blocks.iter().map(|block| &block.serial)));
            }
        }
    }
}
