use std::cell::RefCell;
use std::time::Instant;

use tokio::task::LocalSet;

use super::*;
use crate::uplinks::UplinkState;

type Log = Rc<RefCell<Vec<String>>>;

/// Writes down what happens to it.
struct Recorder {
    name: &'static str,
    log: Log,
    orders: mpsc::UnboundedReceiver<Order>,
    /// How long a stop takes.
    stopping: Duration,
}

enum Order {
    Work,
    End,
}

impl Recorder {
    fn note(&self, what: &str) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl Subsystem for Recorder {
    type Event = Option<Order>;
    const NAME: &'static str = "recorder";
    const STOP_DEADLINE: Duration = Duration::from_millis(50);

    async fn next(&mut self) -> Self::Event {
        self.orders.recv().await
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {
            Some(Order::Work) => {
                self.note("begins to work");
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.note("has worked");
                Outcome::Continue(())
            }
            Some(Order::End) => Outcome::Break(Ok(())),
            None => std::future::pending().await,
        }
    }

    fn changed(&mut self, states: &UplinkStates) {
        self.note(if states.uplinks[0].up { "sees up" } else { "sees down" });
    }

    async fn stop(self) {
        tokio::time::sleep(self.stopping).await;
        self.note("stopped");
    }
}

struct Fixture {
    uplinks: Rc<Uplinks>,
    subsystems: Subsystems,
    log: Log,
}

impl Fixture {
    fn new() -> Self {
        let uplinks = Rc::new(Uplinks::new(vec![UplinkState::new("isp1", 0)]));
        let subsystems = Subsystems::new(Rc::clone(&uplinks));
        Self { uplinks, subsystems, log: Log::default() }
    }

    fn start(&mut self, name: &'static str, stopping: Duration) -> mpsc::UnboundedSender<Order> {
        let (sender, orders) = mpsc::unbounded_channel();
        self.subsystems.start(Recorder { name, log: Rc::clone(&self.log), orders, stopping });
        sender
    }
}

#[tokio::test]
async fn subsystems_follow_the_uplinks_and_stop_in_reverse_order() {
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new();
            let _first = fixture.start("first", Duration::ZERO);
            let second = fixture.start("second", Duration::ZERO);
            fixture.uplinks.update(0, |uplink| uplink.up = false);
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert_eq!(fixture.log.take(), ["first sees down", "second sees down"]);
            second.send(Order::End).unwrap_or_else(|_| panic!("the task runs"));
            assert!(fixture.subsystems.ended().await.is_ok());
            fixture.subsystems.stop().await;
            assert_eq!(fixture.log.take(), ["second stopped", "first stopped"]);
        })
        .await;
}

#[tokio::test]
async fn neither_a_change_nor_a_stop_interrupts_the_handling_of_an_event() {
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new();
            let orders = fixture.start("one", Duration::ZERO);
            orders.send(Order::Work).unwrap_or_else(|_| panic!("the task runs"));
            tokio::task::yield_now().await;
            fixture.uplinks.update(0, |uplink| uplink.up = false);
            fixture.subsystems.stop().await;
            let log = fixture.log.take();
            assert_eq!(log[..2], ["one begins to work", "one has worked"], "{log:?}");
            assert_eq!(log.last().unwrap(), "one stopped");
        })
        .await;
}

#[tokio::test]
async fn a_subsystem_that_does_not_stop_in_time_does_not_hold_up_the_others() {
    LocalSet::new()
        .run_until(async {
            let mut fixture = Fixture::new();
            let _first = fixture.start("first", Duration::ZERO);
            let _second = fixture.start("second", Duration::from_secs(3600));
            tokio::task::yield_now().await;
            let began = Instant::now();
            fixture.subsystems.stop().await;
            assert!(began.elapsed() < Duration::from_secs(60));
            assert_eq!(fixture.log.take(), ["first stopped"]);
        })
        .await;
}
