//! What the operating system says of this process, under the names that every Prometheus client uses.
//! Never guesses: what cannot be read is absent. CPU seconds keep their fraction, so that `rate()` is smooth.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo as _};

use crate::metrics::catalog;
use crate::metrics::text::Page;

/// A few lines, and a few readings below `/proc/self`.
pub(crate) fn write(page: &mut Page) {
    if let Ok(readings) = Readings::take() {
        readings.write(page);
    }
}

struct Readings {
    cpu_seconds: f64,
    fds_max: Option<u64>,
    fds_open: Option<u64>,
    resident_bytes: u64,
    start_seconds: Option<f64>,
    threads: Option<u64>,
    virtual_bytes: u64,
}

impl Readings {
    #[expect(
        clippy::cast_precision_loss,
        reason = "clock ticks and seconds since 1970 fit into an f64"
    )]
    fn take() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second;
        let fds_max = process
            .limits()
            .ok()
            .and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(files) => Some(files),
                LimitValue::Unlimited => None,
            });
        Ok(Self {
            cpu_seconds: seconds(stat.utime) + seconds(stat.stime),
            fds_max,
            fds_open: process.fd_count().ok().and_then(|files| u64::try_from(files).ok()),
            resident_bytes: stat.rss_bytes().get(),
            start_seconds: procfs::boot_time_secs()
                .ok()
                .map(|boot| boot as f64 + seconds(stat.starttime)),
            threads: u64::try_from(stat.num_threads).ok(),
            virtual_bytes: stat.vsize,
        })
    }

    fn write(&self, page: &mut Page) {
        page.family(&catalog::PROCESS_CPU_SECONDS_TOTAL, |out| out.put("", self.cpu_seconds));
        page.family(&catalog::PROCESS_MAX_FDS, |out| {
            self.fds_max.into_iter().for_each(|files| out.put("", files))
        });
        page.family(&catalog::PROCESS_OPEN_FDS, |out| {
            self.fds_open.into_iter().for_each(|files| out.put("", files))
        });
        page.family(&catalog::PROCESS_RESIDENT_MEMORY_BYTES, |out| {
            out.put("", self.resident_bytes)
        });
        page.family(&catalog::PROCESS_START_TIME_SECONDS, |out| {
            self.start_seconds.into_iter().for_each(|at| out.put("", at));
        });
        page.family(&catalog::PROCESS_THREADS, |out| {
            self.threads.into_iter().for_each(|threads| out.put("", threads))
        });
        page.family(&catalog::PROCESS_VIRTUAL_MEMORY_BYTES, |out| {
            out.put("", self.virtual_bytes)
        });
    }
}
