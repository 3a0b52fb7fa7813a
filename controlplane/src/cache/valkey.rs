//! The cache on a Valkey (or Redis) server or cluster.
//!
//! Every call is one round trip on one connection that all calls share, pipelined, and ends within its time-out whatever
//! the server does. What is written is replaced in one step by a script. How the connection is kept is in `link`.

mod address;
mod bulk;
mod fault;
mod health;
mod link;
mod script;

use self::bulk::Bulk;
use self::link::{Bound, Link};
use super::load::Loads;
use super::names::{CLUSTER_NODES, CLUSTER_STATS, CacheKey, Kind};
use super::{
    Cache, CacheError, CacheHealth, CacheTimeouts, Cached, FORGET_AFTER_MS, Lease, LeaseWish, NODES_MAX, News, Roll,
    VALUE_BYTES_MAX, VALUE_PARTS_MAX, Value, Write, check_hash, check_text, check_writes, node_key,
};
use async_trait::async_trait;
use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, SortedSetsInterface};
use fred::types::Value as Word;
use futures_util::future::join_all;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A server or a cluster.
pub struct Valkey {
    link: Arc<Link>,
    bulk: Bulk,
    task: JoinHandle<()>,
}

impl Valkey {
    /// The server at `url`, which is connected to in the background. `tls` is asked for only where the URL wants it.
    ///
    /// # Errors
    /// What to mend in the settings; the URL is not shown.
    pub fn open(
        url: &str,
        timeouts: CacheTimeouts,
        tls: impl FnOnce() -> Result<ClientConfig, String>,
    ) -> Result<Self, String> {
        let config = address::read(url, tls)?;
        let bulk = Bulk::new(config.clone());
        let (link, task) = Link::start(config, timeouts);
        Ok(Self { link, bulk, task })
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A pattern's lifetime as scripts take it: ms, 0 for no end.
fn lifetime_ms(key: &CacheKey) -> Word {
    number(key.pattern().lifetime_s.map_or(0, |lifetime_s| lifetime_s * 1_000))
}

fn number(number: u64) -> Word {
    Word::from(number.to_string())
}

fn word(text: &str) -> Word {
    Word::from(text)
}

/// A value as the script takes it.
fn words(key: &CacheKey, value: &Value) -> Vec<Word> {
    let mut words = vec![word(value.kind().name()), lifetime_ms(key)];
    match value {
        Value::Text(text) => words.push(word(text)),
        Value::Hash(fields) => words.extend(fields.iter().flat_map(|(name, value)| [word(name), word(value)])),
        Value::Sorted(members) => words.extend(scored(members)),
    }
    words
}

/// Members as scripts take them.
fn scored(members: &[(String, i64)]) -> impl Iterator<Item = Word> {
    members.iter().flat_map(|(member, score)| [Word::from(score.to_string()), word(member)])
}

/// A value as the script gives it: its remaining lifetime, then its texts.
fn value(kind: Kind, texts: Vec<String>) -> Cached<Option<(Value, Option<u64>)>> {
    let mut texts = texts.into_iter();
    let Some(lifetime) = texts.next() else { return Ok(None) };
    // -1 is no end, and is no such number.
    let lifetime_ms = lifetime.parse::<u64>().ok();
    let odd = || CacheError::Refused("what stands there cannot be read".to_owned());
    let mut pairs = Vec::new();
    let value = match kind {
        Kind::Text => Value::Text(texts.next().ok_or_else(odd)?),
        Kind::Hash | Kind::Sorted => {
            while let Some(first) = texts.next() {
                pairs.push((first, texts.next().ok_or_else(odd)?));
            }
            let score = |(member, score): (String, String)| Some((member, score.parse::<i64>().ok()?));
            match kind {
                Kind::Sorted => Value::Sorted(pairs.into_iter().map(score).collect::<Option<_>>().ok_or_else(odd)?),
                _ => Value::Hash(pairs.into_iter().collect()),
            }
        }
    };
    Ok(Some((value, lifetime_ms)))
}

#[async_trait]
impl Cache for Valkey {
    fn kind(&self) -> &'static str {
        "valkey"
    }

    async fn set_timeouts(&self, timeouts: CacheTimeouts) {
        self.link.set_timeouts(timeouts);
    }

    async fn ping(&self) -> Cached<()> {
        let work = |client: Client| async move { Ok(client.ping::<Word>(None).await.map(drop)?) };
        self.link.call(Bound::Read, work).await
    }

    async fn get(&self, key: &CacheKey) -> Cached<Option<(Value, Option<u64>)>> {
        let kind = key.pattern().kind;
        let bounds = [VALUE_PARTS_MAX as u64, VALUE_BYTES_MAX as u64].map(number);
        let words: Vec<Word> = [word(kind.name())].into_iter().chain(bounds).collect();
        let work = |client| async move { script::READ.run(&client, key.name(), words).await };
        value(kind, self.link.call(Bound::Read, work).await?)
    }

    async fn put(&self, key: &CacheKey, value: &Value) -> Cached<()> {
        value.check(key)?;
        let words = words(key, value);
        let work = |client| async move { script::WRITE.run(&client, key.name(), words).await };
        self.link.call(Bound::Write, work).await
    }

    async fn delete(&self, key: &CacheKey) -> Cached<bool> {
        let work = |client: Client| async move { Ok(client.del::<i64, _>(key.name()).await?) };
        self.link.call(Bound::Write, work).await.map(|gone| gone > 0)
    }

    async fn add(&self, key: &CacheKey, amount: i64) -> Cached<i64> {
        check_text(key)?;
        let words = vec![Word::from(amount.to_string()), lifetime_ms(key)];
        let work = |client| async move { script::ADD.run(&client, key.name(), words).await };
        self.link.call(Bound::Write, work).await
    }

    async fn write_all(&self, writes: &[Write]) -> Cached<()> {
        check_writes(writes)?;
        let work = |client: Client| async move {
            let runs = writes.iter().map(|write| {
                let client = &client;
                async move {
                    match write {
                        Write::Put(key, value) => {
                            script::WRITE.run::<Word>(client, key.name(), words(key, value)).await
                        }
                        Write::PutLatest { key, value, by, most } => {
                            let Value::Text(text) = value else { return Ok(Word::Null) };
                            let words = vec![lifetime_ms(key), word(text), word(by), number(*most)];
                            script::WRITE_LATEST.run::<Word>(client, key.name(), words).await
                        }
                        Write::Append { key, members, since, keep } => {
                            let numbers = [Word::from(since.to_string()), number(*keep as u64)];
                            let head = [lifetime_ms(key)].into_iter().chain(numbers);
                            let words = head.chain(scored(members)).collect();
                            script::APPEND.run::<Word>(client, key.name(), words).await
                        }
                    }
                }
            });
            // All are sent before the first is answered, each to the server that has its name.
            join_all(runs).await.into_iter().try_for_each(|done| done.map(drop))
        };
        self.link.call(Bound::Write, work).await
    }

    async fn load(&self, loads: Loads) -> Cached<()> {
        self.bulk.load(loads).await
    }

    async fn advance(&self, key: &CacheKey, guard: (&str, &str), news: &[(&str, News)]) -> Cached<bool> {
        check_hash(key)?;
        let mut words = vec![word(guard.0), word(guard.1)];
        for (field, news) in news {
            words.extend(match news {
                News::Number(number) => [word("number"), word(field), Word::from(number.to_string())],
                News::Text(text) => [word("text"), word(field), word(text)],
            });
        }
        let work = |client| async move { script::ADVANCE.run::<i64>(&client, key.name(), words).await };
        self.link.call(Bound::Write, work).await.map(|done| done == 1)
    }

    async fn lease(&self, key: &CacheKey, wish: LeaseWish) -> Cached<Lease> {
        check_text(key)?;
        let numbers = [wish.limit, wish.want, wish.demand, u32::from(wish.next), wish.debt];
        let words: Vec<Word> = numbers.into_iter().map(|each| number(each.into())).chain([lifetime_ms(key)]).collect();
        let work = |client| async move { script::LEASE.run::<Vec<u32>>(&client, key.name(), words).await };
        let answer = self.link.call(Bound::Write, work).await?;
        let &[granted, window_age_ms, left, demand] = answer.as_slice() else {
            return Err(CacheError::Refused("the script answered something else".to_owned()));
        };
        Ok(Lease { granted, window_age_ms, left, demand })
    }

    async fn heartbeat(&self, node: &str, counters: &BTreeMap<String, String>, alive_ms: u64) -> Cached<Roll> {
        let key = node_key(CLUSTER_STATS, node)?;
        let counters = Value::Hash(counters.clone());
        let numbers = [alive_ms, FORGET_AFTER_MS, NODES_MAX as u64].map(number);
        let words: Vec<Word> = [word(node)].into_iter().chain(numbers).collect();
        let note =
            |client| async move { script::NODES.run::<(u64, Vec<String>)>(&client, CLUSTER_NODES.prefix, words).await };
        // Two names, which may stand on two servers: two calls, sent together.
        let (written, nodes) = tokio::join!(self.put(&key, &counters), self.link.call(Bound::Write, note));
        written?;
        let (is_new, mut nodes) = nodes?;
        nodes.sort_unstable();
        Ok(Roll { nodes, was_noted: is_new == 0 })
    }

    async fn leave(&self, node: &str) -> Cached<()> {
        let key = node_key(CLUSTER_STATS, node)?;
        let work =
            |client: Client| async move { Ok(client.zrem::<i64, _, _>(CLUSTER_NODES.prefix, node).await.map(drop)?) };
        let (gone, left) = tokio::join!(self.delete(&key), self.link.call(Bound::Write, work));
        gone.and(left)
    }

    fn health(&self) -> CacheHealth {
        self.link.health().read()
    }

    async fn close(&self) {
        self.task.abort();
        self.link.close();
        self.bulk.close().await;
    }
}

#[cfg(test)]
mod tests;
