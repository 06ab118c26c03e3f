//! Shutdown as a value: created by whoever starts the broker and passed down to every part, so that each test has its
//! own.

use tokio::sync::watch;

/// The stage of the shutdown. Stages only advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// Serving.
    #[default]
    Running,
    /// Bridges disconnect, Clients are still served.
    Leaving,
    /// Listeners are closed, Clients are disconnected, pending work is finished.
    Draining,
    /// The time for that is over: everything still running is dropped.
    Stop,
}

/// Advances the stage. Dropping it stops everything, so that a forgotten trigger cannot leave tasks behind.
#[derive(Debug)]
pub struct ShutdownTrigger {
    stage: watch::Sender<Stage>,
}

/// Observes the stage; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Receiver<Stage>,
}

impl Shutdown {
    /// A shutdown in stage [`Stage::Running`], and its trigger.
    #[must_use]
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(Stage::Running);
        (ShutdownTrigger { stage: sender }, Self { stage: receiver })
    }

    /// Waits until this stage, or a later one, is reached; at once if it was. Cancellation safe.
    pub(crate) async fn reached(&mut self, stage: Stage) {
        // An error says that the trigger is gone, which means Stop.
        let _stage_or_gone = self.stage.wait_for(|current| *current >= stage).await;
    }

    /// Waits until draining begins.
    pub(crate) async fn draining(&mut self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits for the end.
    pub(crate) async fn stopped(&mut self) {
        self.reached(Stage::Stop).await;
    }
}

impl ShutdownTrigger {
    /// Advances to this stage; going back is ignored.
    pub fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let advances = stage > *current;
            if advances {
                *current = stage;
            }
            advances
        });
    }

    /// Another observer.
    #[must_use]
    pub(crate) fn observe(&self) -> Shutdown {
        Shutdown { stage: self.stage.subscribe() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_only_advance() {
        let (trigger, mut shutdown) = Shutdown::new();
        assert_eq!(*shutdown.stage.borrow(), Stage::Running);
        trigger.advance(Stage::Stop);
        trigger.advance(Stage::Draining);
        assert_eq!(*shutdown.stage.borrow(), Stage::Stop);
        shutdown.draining().await;
        shutdown.stopped().await;
        assert_eq!(*trigger.observe().stage.borrow(), Stage::Stop);
    }

    #[tokio::test]
    async fn waiting_ends_at_the_stage_and_not_before() {
        let (trigger, shutdown) = Shutdown::new();
        let mut observer = shutdown.clone();
        let waiting = tokio::spawn(async move {
            observer.draining().await;
            *observer.stage.borrow()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        trigger.advance(Stage::Draining);
        assert_eq!(waiting.await.unwrap(), Stage::Draining);
    }

    #[tokio::test]
    async fn a_dropped_trigger_stops_everything() {
        let (trigger, mut shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.stopped().await;
        shutdown.reached(Stage::Draining).await;
    }
}
