//! Wakes an open-loop publisher on time. The runtime's timers have a resolution of milliseconds, which would dominate
//! a latency measurement, so on Linux this uses a timer file descriptor.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(target_os = "linux")]
mod platform {
    use super::{Context, Duration, Poll, io, ready};

    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A timer with the precision of the kernel's.
    pub(crate) struct Timer {
        file: AsyncFd<OwnedFd>,
    }

    impl Timer {
        /// Call within a runtime.
        #[expect(deprecated, reason = "the new name is unsafe; an OwnedFd fulfils its contract")]
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let file = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
            Ok(Self { file })
        }

        /// Ready once, `after` from now.
        pub(crate) fn set(&mut self, after: Duration) -> io::Result<()> {
            const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
            // Zero would turn the timer off.
            let after = after.max(Duration::from_nanos(1));
            let it_value = Timespec::try_from(after).map_err(io::Error::other)?;
            let spec = Itimerspec { it_interval: NEVER, it_value };
            timerfd_settime(self.file.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            Ok(())
        }

        /// Waits for the time that was set.
        pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            loop {
                let mut guard = ready!(self.file.poll_read_ready(cx))?;
                let mut count = [0; 8];
                let read = guard.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut count)?));
                if let Ok(result) = read {
                    return Poll::Ready(result.map(|_| ()));
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use super::{Context, Duration, Poll, io, ready};

    use std::pin::Pin;

    use tokio::time::{Instant, Sleep, sleep};

    /// A timer with the precision of the runtime's.
    pub(crate) struct Timer {
        sleep: Pin<Box<Sleep>>,
    }

    impl Timer {
        /// Call within a runtime.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self { sleep: Box::pin(sleep(Duration::MAX)) })
        }

        /// Ready once, `after` from now.
        pub(crate) fn set(&mut self, after: Duration) -> io::Result<()> {
            self.sleep.as_mut().reset(Instant::now() + after);
            Ok(())
        }

        /// Waits for the time that was set.
        pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.sleep.as_mut().poll(cx));
            Poll::Ready(Ok(()))
        }
    }
}

pub(super) use platform::Timer;
