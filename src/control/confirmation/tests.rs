use super::*;
use crate::api::{Event, PendingState};

/// An instance whose file is in memory.
struct FakeInstance {
    file: RefCell<String>,
    config: RefCell<Config>,
    /// True: it can adopt no configuration.
    refuses: Cell<bool>,
}

impl FakeInstance {
    fn new() -> Self {
        let config = config::parse("a.yaml", &text("")).unwrap().config;
        let (file, config) = (RefCell::new(text("")), RefCell::new(config));
        Self { file, config, refuses: Cell::new(false) }
    }

    fn edit(&self, more: &str) {
        self.file.replace(text(more));
    }

    /// Returns the values of the keys that the tests change.
    fn in_use(&self) -> (bool, u32) {
        let config = self.config.borrow();
        (config.nat.hairpin, config.limits.sessions)
    }
}

fn text(more: &str) -> String {
    format!(
        "name: a\ninside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\n\
         uplinks: [{{ interface: wan0, addresses: [203.0.113.10] }}]\nlimits: {{ sessions: 1k }}\n\
         {more}"
    )
}

impl Reload for FakeInstance {
    fn file_config(&self) -> Config {
        self.config.borrow().clone()
    }

    fn path(&self) -> &Path {
        Path::new("a.yaml")
    }

    fn read(&self) -> Result<(Loaded, String), ReloadError> {
        let file = self.file.borrow().clone();
        Ok((config::parse("a.yaml", &file)?, file))
    }

    fn needs_restart(&self, change: &Change) -> bool {
        change.path.starts_with("tun")
    }

    fn refusal(&self, keys: String) -> ReloadError {
        ReloadError::NeedsRestart { path: "a.yaml".to_owned(), keys }
    }

    async fn adopt(&self, new: Loaded) -> Result<Reloaded, ReloadError> {
        if self.refuses.get() {
            return Err(self.refusal("refused".to_owned()));
        }
        let changes = self.changes(&new.config)?;
        self.config.replace(new.config);
        let changed = changes.into_iter().map(|change| change.path).collect();
        Ok(Reloaded { changed, sessions_ended: 0, warnings: Vec::new(), confirm_seconds: None })
    }
}

struct Setup {
    instance: FakeInstance,
    confirmation: Confirmation,
    events: Rc<Events>,
    _directory: tempfile::TempDir,
}

fn setup() -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.reload");
    let events = Rc::new(Events::new());
    let remembered = Remembered { path, record: None, goes_back: false };
    let confirmation = Confirmation::new(remembered, Rc::clone(&events));
    Setup { instance: FakeInstance::new(), confirmation, events, _directory: directory }
}

impl Setup {
    fn on_disk(&self) -> Option<ReloadRecord> {
        ReloadRecord::read(&self.confirmation.path).unwrap()
    }

    fn last_event(&self) -> EventKind {
        let (recent, _) = self.events.follow();
        recent.into_iter().last().map(|Event { kind, .. }| kind).unwrap()
    }

    fn state(&self) -> Option<PendingState> {
        let (status, disk) = (self.confirmation.status(), self.on_disk());
        let state = status.map(|status| status.state);
        assert_eq!(state, disk.map(|record| record.state), "the disk has the same");
        state
    }

    async fn reload_for(&self, seconds: u64) -> Result<Reloaded, ReloadError> {
        self.confirmation.reload_for(&self.instance, seconds).await
    }

    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.confirmation.reload(&self.instance).await
    }
}

const NO_HAIRPIN: &str = "nat: { hairpin: false }\n";

#[tokio::test]
async fn without_a_confirmation_the_instance_goes_back_and_a_reload_uses_the_file_again() {
    let setup = setup();
    setup.instance.edit(NO_HAIRPIN);
    let reloaded = setup.reload_for(1).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.confirm_seconds), (vec!["nat.hairpin".into()], Some(1)));
    assert_eq!(setup.instance.in_use(), (false, 1000));
    assert_eq!(setup.state(), Some(PendingState::Unconfirmed));
    assert_eq!(setup.last_event(), EventKind::ReloadPending { seconds: 1 });

    setup.confirmation.due().await;
    setup.confirmation.expire(&setup.instance).await.unwrap();
    assert_eq!(setup.instance.in_use(), (true, 1000));
    assert_eq!(setup.state(), Some(PendingState::Reverted));
    let EventKind::ReloadReverted { reason, changed, .. } = setup.last_event() else {
        panic!("{:?}", setup.last_event())
    };
    assert_eq!((reason, changed), (RevertReason::NotConfirmed, vec!["nat.hairpin".into()]));
    let error = setup.confirmation.confirm().await.unwrap_err().to_string();
    assert!(error.contains("natbox went back at 20"), "{error}");

    setup.reload().await.unwrap();
    assert_eq!((setup.instance.in_use(), setup.state()), ((false, 1000), None));
}

#[tokio::test]
async fn a_confirmation_keeps_the_new_configuration() {
    let setup = setup();
    let error = setup.confirmation.confirm().await.unwrap_err().to_string();
    assert!(error.contains("natbox reload --confirm 60s"), "{error}");
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(1).await.unwrap();
    assert_eq!(setup.confirmation.confirm().await.unwrap().changed, ["nat.hairpin"]);
    assert_eq!(setup.state(), None);
    assert!(matches!(setup.last_event(), EventKind::ReloadConfirmed { .. }));
    // The countdown that was due at the same moment.
    setup.confirmation.expire(&setup.instance).await.unwrap();
    let due = tokio::time::timeout(Duration::from_millis(1200), setup.confirmation.due()).await;
    assert!(due.is_err(), "no countdown is left");
    assert_eq!(setup.instance.in_use(), (false, 1000));
}

#[tokio::test]
async fn a_cancelled_reload_goes_back_at_once() {
    let setup = setup();
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(600).await.unwrap();
    assert_eq!(setup.confirmation.cancel(&setup.instance).await.unwrap().changed, ["nat.hairpin"]);
    assert_eq!(setup.instance.in_use(), (true, 1000));
    assert_eq!(setup.state(), Some(PendingState::Reverted));
    assert!(matches!(
        setup.last_event(),
        EventKind::ReloadReverted { reason: RevertReason::Cancelled, .. }
    ));
    assert!(setup.confirmation.cancel(&setup.instance).await.is_err());
}

/// RFC 6241 section 8.4: a further confirmed commit begins the time again, and the configuration to
/// go back to stays.
#[tokio::test]
async fn while_a_reload_waits_a_plain_one_is_refused_and_a_second_one_begins_the_time_again() {
    let setup = setup();
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(20).await.unwrap();
    let refused = setup.reload().await.unwrap_err().to_string();
    assert!(refused.contains("natbox confirm") && refused.contains("--cancel"), "{refused}");
    assert!(matches!(setup.last_event(), EventKind::ReloadFailed { .. }));

    setup.instance.edit(&NO_HAIRPIN.replace("false", "false, mss_clamp: off"));
    setup.reload_for(600).await.unwrap();
    let status = setup.confirmation.status().unwrap();
    assert_eq!(status.changed, ["nat.hairpin", "nat.mss_clamp"], "since the first reload");
    assert!(status.seconds_left.unwrap() > 500, "{status:?}");
    setup.confirmation.cancel(&setup.instance).await.unwrap();
    let before = config::parse("a.yaml", &text("")).unwrap().config;
    assert_eq!(*setup.instance.config.borrow(), before);
}

#[tokio::test]
async fn a_file_that_is_as_before_leaves_nothing_to_go_back_from() {
    let setup = setup();
    let reloaded = setup.reload_for(60).await.unwrap();
    assert_eq!((reloaded.confirm_seconds, setup.state()), (None, None));
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(60).await.unwrap();
    setup.instance.edit("");
    setup.reload_for(60).await.unwrap();
    assert_eq!((setup.instance.in_use(), setup.state()), ((true, 1000), None));
}

#[tokio::test]
async fn a_refused_reload_changes_neither_the_configuration_nor_the_countdown() {
    let setup = setup();
    for seconds in [0, MAX_CONFIRM_SECONDS + 1, u64::MAX] {
        let error = setup.reload_for(seconds).await.unwrap_err().to_string();
        assert!(error.contains("wanted 1 s to 24 h"), "{error}");
    }
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(600).await.unwrap();
    let first = setup.on_disk();
    for more in ["tun: { name: nb9 }\n", "tun: 7\n"] {
        setup.instance.edit(more);
        setup.reload_for(60).await.unwrap_err();
        assert_eq!(setup.on_disk(), first);
    }
    setup.instance.edit("nat: { mss_clamp: off }\n");
    setup.instance.refuses.set(true);
    setup.reload_for(60).await.unwrap_err();
    assert_eq!((setup.on_disk(), setup.instance.in_use()), (first, (false, 1000)));
}

#[tokio::test]
async fn without_a_place_for_the_record_nothing_is_changed() {
    let setup = setup();
    std::fs::remove_dir_all(setup.confirmation.path.parent().unwrap()).unwrap();
    setup.instance.edit(NO_HAIRPIN);
    let error = setup.reload_for(60).await.unwrap_err().to_string();
    assert!(error.contains("a.reload") && error.contains("nothing was changed"), "{error}");
    assert_eq!(setup.instance.in_use(), (true, 1000));
}

#[tokio::test]
async fn an_instance_that_cannot_go_back_says_so_and_goes_back_at_its_next_start() {
    let setup = setup();
    setup.instance.edit(NO_HAIRPIN);
    setup.reload_for(1).await.unwrap();
    setup.confirmation.due().await;
    setup.instance.refuses.set(true);
    setup.confirmation.expire(&setup.instance).await.unwrap_err();
    let error = setup.confirmation.status().unwrap().error.unwrap();
    assert!(error.contains("restart natbox"), "{error}");
    assert_eq!(setup.last_event(), EventKind::ReloadFailed { error });
    let due = tokio::time::timeout(Duration::from_millis(50), setup.confirmation.due()).await;
    assert!(due.is_err(), "the instance does not try again and again");
    assert_eq!(setup.state(), Some(PendingState::Unconfirmed), "the next start goes back");
}
