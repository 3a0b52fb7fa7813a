//! Who waits for whom, and what counts where two say different things of one key.

use super::*;
use crate::keys::desk::book::AMEND_MAX;
use crate::keys::pulse;
use std::sync::mpsc;
use std::thread;

/// Keeps the line from everybody else until the sender is dropped; others stand behind when this answers.
async fn occupy(desk: &Arc<KeyDesk>) -> mpsc::SyncSender<()> {
    let (leave, left) = mpsc::sync_channel::<()>(1);
    let (entered, inside) = tokio::sync::oneshot::channel();
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        desk.in_line(move |_, _| {
            let _ = entered.send(());
            let _ = left.recv();
        })
        .await;
    });
    inside.await.expect("nobody else is in the line");
    leave
}

async fn row_of(node: &Node, id: u32) -> KeyRow {
    node.store.inner.key(id).await.expect("the store is here").expect("it is stored")
}

async fn revoke_elsewhere(node: &Node, id: u32, time_ms: u64) {
    let audit = node.desk.entry("key.revoke", id.to_string(), "admin");
    node.store.inner.change_key(id, KeyChange::Revoke { time_ms }, &audit).await.expect("revoked");
}

async fn ask_while_a_directory_is_made() {
    let node = Node::alone().await;
    let (one, two) = (node.create("one", "pro").await, node.create("two", "pro").await);
    let leave = occupy(&node.desk).await;
    let status = node.desk.status(one.row.id).await.expect("the store is here").expect("it is known");
    assert_eq!((&status["in_force"]["held"], &status["stored"]["state"]), (&false.into(), &"active".into()));
    assert_eq!((node.desk.counters().keys, node.desk.limit_per_month(KeyId(one.row.id))), (2, 100_000_000));
    // Another mode is taken up, and the pulse goes on.
    node.modes.send_replace(parameters(SystemMode::Performance));
    let heard = node.desk.beats().borrow().count;
    node.until("two more beats", |desk| desk.beats().borrow().count > heard + 1).await;
    // Whoever is to be refused is refused at once.
    let invalidating = tokio::spawn({
        let (desk, id) = (Arc::clone(&node.desk), one.row.id);
        async move { desk.invalidate(id, "admin").await }
    });
    let revoking = tokio::spawn({
        let (desk, id) = (Arc::clone(&node.desk), two.row.id);
        async move { desk.revoke(id, "admin").await }
    });
    node.until("both are refused", |_| node.limit_of(&one.text).is_none() && node.limit_of(&two.text).is_none()).await;
    let status = node.desk.status(one.row.id).await.expect("the store is here").expect("it is known");
    assert_eq!(status["in_force"]["held"], true);
    drop(leave);
    assert_eq!(invalidating.await.expect("no panic"), Ok(Some(Invalidated::Works)));
    revoking.await.expect("no panic").expect("revoked");
    assert_eq!((node.limit_of(&one.text), node.limit_of(&two.text)), (Some(1_000), None));
}

#[test]
fn nobody_on_the_runtime_waits_for_a_directory_that_is_being_made() {
    let (done, is_done) = mpsc::sync_channel(1);
    // One thread for all tasks: whoever blocks it stops everything, and this test with it.
    let runtime = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(ask_while_a_directory_is_made());
        let _ = done.send(());
    });
    match is_done.recv_timeout(LONG) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => runtime.join().expect("all of it holds"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("somebody blocks the runtime"),
    }
}

#[tokio::test]
async fn a_reload_that_hangs_does_not_hold_up_the_pulse() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let hanging: OnReloads = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    });
    let beats = watch::Sender::new(Beat::default());
    let mut heard = beats.subscribe();
    let store: Arc<dyn Store> = shaky().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(pulse::run(store, hanging, beats));
    timeout(LONG, heard.wait_for(|beat| beat.count > 2)).await.expect("it goes on").expect("it runs");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "who is busy is not told again");
}

#[tokio::test]
async fn revoked_is_revoked_by_any_clock() {
    let node = Node::alone().await;
    let one = node.create("one", "pro").await;
    revoke_elsewhere(&node, one.row.id, clock::now().wall_ms + 3_600_000).await;
    node.until("an hour ahead or not, it is refused", |_| node.limit_of(&one.text).is_none()).await;
    let status = node.desk.status(one.row.id).await.expect("the store is here").expect("it is stored");
    assert_eq!(status["stored"]["state"], "revoked");
    assert!(matches!(node.desk.rotate(one.row.id, 0, "admin").await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn an_older_row_never_takes_the_place_of_a_newer_one() {
    for is_followed in [true, false] {
        let mut node = Node::alone().await;
        let one = node.create("one", "pro").await;
        let (stale, since) = (row_of(&node, one.row.id).await, node.desk.standing.seen());
        if is_followed {
            revoke_elsewhere(&node, one.row.id, 1).await;
            node.until("the revocation is followed", |_| node.limit_of(&one.text).is_none()).await;
        } else {
            // Nobody follows the store any more: what this node knows it knows of itself.
            node.tasks.shutdown().await;
            node.desk.revoke(one.row.id, "admin").await.expect("revoked");
        }
        for since in [None, Some(since)] {
            let taken = node.desk.take_over(vec![stale.clone()], since).await;
            assert_eq!((taken, node.limit_of(&one.text)), (false, None), "followed {is_followed}, read at {since:?}");
        }
        // Read again it is as it is.
        assert_eq!(node.desk.invalidate(one.row.id, "admin").await, Ok(Some(Invalidated::WorksNot)));
        assert_eq!(node.limit_of(&one.text), None);
    }
}

#[tokio::test]
async fn a_held_key_stays_refused_until_it_has_been_read_anew() {
    let node = Node::alone().await;
    let one = node.create("one", "pro").await;
    let before = row_of(&node, one.row.id).await;
    node.store.away.store(true, Ordering::Relaxed);
    assert!(matches!(node.desk.invalidate(one.row.id, "admin").await, Ok(Some(Invalidated::Held(_)))));
    // What was read before it was held says nothing, whether it is one page or everything.
    let page = before.clone();
    let seen = node.desk.standing.seen();
    node.desk.in_line(move |desk, line| desk.apply(line, desk.news(&page).into_iter().collect(), seen)).await;
    assert_eq!(node.limit_of(&one.text), None);
    let others = (1_000_u32..).take(AMEND_MAX).map(|id| {
        let mut hash = [1; 32];
        hash[..4].copy_from_slice(&id.to_le_bytes());
        KeyRow { id, hash, ..before.clone() }
    });
    let rows: Vec<KeyRow> = others.chain([before.clone()]).collect();
    let all = move |desk: &KeyDesk, line: &mut _| {
        desk.replace_all(line, rows.iter().filter_map(|row| desk.news(row)).collect(), seen);
    };
    node.desk.in_line(all).await.expect("no panic");
    assert_eq!((node.desk.current().len(), node.limit_of(&one.text)), (AMEND_MAX + 1, None));
    assert!(!node.desk.current().is_refused(KeyId(1_000)));
    node.store.away.store(false, Ordering::Relaxed);
    node.until("it is read anew", |_| node.limit_of(&one.text) == Some(1_000)).await;
}

#[tokio::test]
async fn who_is_refused_is_not_in_the_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = shaky().await;
    let start = || Node::start(&store, Vec::new(), Some(folder.path().to_owned()));
    let before = start();
    before.until("it has read the store", |desk| desk.counters().loaded).await;
    let keys =
        [before.create("held", "pro").await, before.create("revoked", "pro").await, before.create("good", "pro").await];
    before.desk.revoke(keys[1].row.id, "admin").await.expect("revoked");
    store.away.store(true, Ordering::Relaxed);
    assert!(matches!(before.desk.invalidate(keys[0].row.id, "admin").await, Ok(Some(Invalidated::Held(_)))));
    let limits = |node: &Node| keys.each_ref().map(|key| node.limit_of(&key.text));
    before.desk.close().await;
    drop(before);
    let after = start();
    assert_eq!(limits(&after), [None, None, Some(1_000)]);
    // One that has never read the store keeps to it as well.
    assert!(matches!(after.desk.invalidate(keys[2].row.id, "admin").await, Ok(Some(Invalidated::Held(_)))));
    after.desk.close().await;
    drop(after);
    assert_eq!(limits(&start()), [None, None, None]);
}
