//! Loading much into a server or a cluster: on connections of its own, thousands of commands ahead of their answers, so
//! that the server, not the way to it, is what takes the time.
//!
//! Connections are made for the first load and kept for those that follow at once; one that fails takes all of them with
//! it, and what was under way may have been written or not: whoever loads does so again. What stands under a name as another type than it
//! should makes way.

use super::super::load::{Act, Load, Loads, Word};
use super::super::{CacheError, Cached};
use super::fault::Fault;
use fred::bytes::Bytes;
use fred::clients::{Client, Pipeline};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, FredResult};
use fred::types::config::{Config, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Connections, or in a cluster so many to each of its servers: while one fills the other is emptied.
const CONNECTIONS: usize = 2;

/// Things of which a pipeline is made: each is two or three commands, so that it is some thousand.
const PIPELINE_LOADS: usize = 512;

/// Pipelines under way at once in one load.
const PIPELINES_MAX: usize = 8;

/// Commands under way at once on one connection: those of two loads at once, of which every thing is three.
const COMMANDS_MAX: usize = 2 * PIPELINES_MAX * PIPELINE_LOADS * 3;

/// Longest that connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Longest that one pipeline may take: a server that does 50 commands in a millisecond needs half a second for all that are
/// under way.
const PIPELINE_MAX: Duration = Duration::from_secs(10);

/// Connections that nothing was loaded on for so long are made anew: whether the other end still has them is not known.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Members added to a sorted set by one command: a server does nothing else for two milliseconds.
const MEMBERS_MAX: usize = 2_000;

/// Deletes what is of another type.
const MAKE_WAY: &str = "if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then redis.call('DEL', KEYS[1]) end return 1";

/// The connections.
pub struct Bulk {
    config: Config,
    /// With when they were asked for last.
    clients: Mutex<Option<(Arc<Clients>, Instant)>>,
}

/// Clients that are connected, and their tasks, which end with them.
struct Clients(Vec<(Client, JoinHandle<Result<(), Error>>)>);

impl Clients {
    /// Whether some load has them, or had them just now, and none has ended.
    fn are_good(self: &Arc<Self>, last: Instant) -> bool {
        let are_used = Arc::strong_count(self) > 1 || last.elapsed() < IDLE_MAX;
        are_used && !self.0.iter().any(|(_, task)| task.is_finished())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

impl Bulk {
    /// To what `config` names. Nothing is connected to yet.
    pub fn new(config: Config) -> Self {
        Self { config, clients: Mutex::new(None) }
    }

    /// Loads all of it.
    pub async fn load(&self, loads: Loads) -> Cached<()> {
        let clients = self.clients().await?;
        let (texts, loads) = loads.into_parts();
        let texts = Bytes::from(texts);
        let mut sends = Vec::with_capacity(loads.len() / PIPELINE_LOADS + 1);
        for (index, chunk) in loads.chunks(PIPELINE_LOADS).enumerate() {
            sends.push(send(&clients.0[index % CONNECTIONS].0, &texts, chunk));
        }
        let done: Result<(), Fault> = stream::iter(sends).buffer_unordered(PIPELINES_MAX).try_collect().await;
        match done {
            Ok(()) => Ok(()),
            Err(fault) => {
                // Those of another load, made since, stay.
                if !matches!(fault, Fault::Refused(_)) {
                    self.part_with(&clients).await;
                }
                Err(fault.into_error())
            }
        }
    }

    /// These are not used again.
    async fn part_with(&self, gone: &Arc<Clients>) {
        let mut clients = self.clients.lock().await;
        if clients.as_ref().is_some_and(|(present, _)| Arc::ptr_eq(present, gone)) {
            *clients = None;
        }
    }

    /// No connection is kept any longer.
    pub async fn close(&self) {
        *self.clients.lock().await = None;
    }

    async fn clients(&self) -> Cached<Arc<Clients>> {
        let mut clients = self.clients.lock().await;
        if let Some((made, last)) = &mut *clients
            && made.are_good(*last)
        {
            *last = Instant::now();
            return Ok(Arc::clone(made));
        }
        let made = try_join_all((0..CONNECTIONS).map(|_| connect(&self.config))).await;
        let made = Arc::new(Clients(made.map_err(Fault::into_error)?));
        *clients = Some((Arc::clone(&made), Instant::now()));
        Ok(made)
    }
}

/// A connection that ends with the first thing that goes wrong on it.
async fn connect(config: &Config) -> Result<(Client, JoinHandle<Result<(), Error>>), Fault> {
    let client = Builder::from_config(config.clone())
        .with_performance_config(|performance| performance.default_command_timeout = PIPELINE_MAX)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_MAX;
            connection.internal_command_timeout = CONNECT_MAX;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = COMMANDS_MAX;
            connection.tcp.nodelay = Some(true);
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(PIPELINE_MAX), interval: Duration::from_secs(1) };
        })
        .build()?;
    let task = client.connect();
    match timeout(CONNECT_MAX, client.wait_for_connect()).await {
        Ok(Ok(())) => Ok((client, task)),
        Ok(Err(why)) => {
            task.abort();
            Err(why.into())
        }
        Err(_) => {
            task.abort();
            let why = format!("no connection within {} s", CONNECT_MAX.as_secs());
            Err(Fault::Unreachable(CacheError::Unreachable(why)))
        }
    }
}

/// Sends some things, and those once more whose name held another type, which goes first.
async fn send(client: &Client, texts: &Bytes, loads: &[(Load, Vec<Word>)]) -> Result<(), Fault> {
    let pipeline = client.pipeline();
    let mut of = Vec::with_capacity(3 * loads.len());
    for (index, load) in loads.iter().enumerate() {
        let count = queue(&pipeline, texts, load).await?;
        of.extend(std::iter::repeat_n(index, count));
    }
    let mut in_the_way: Vec<usize> = answers(&pipeline, &of).await?;
    in_the_way.dedup();
    if in_the_way.is_empty() {
        return Ok(());
    }
    let pipeline = client.pipeline();
    let mut count = 0;
    for index in in_the_way {
        let (load, words) = &loads[index];
        // The script looks itself: somebody else may have made way meanwhile, and written.
        let words = [Value::from_static_str(MAKE_WAY), 1.into(), text(texts, words[0]), load.kind.name().into()];
        let eval = CustomCommand::new_static("EVAL", ClusterHash::Offset(2), false);
        pipeline.custom::<Value, _>(eval, words.into()).await?;
        count += 1 + queue(&pipeline, texts, &loads[index]).await?;
    }
    match answers(&pipeline, &vec![0; count]).await?.first() {
        None => Ok(()),
        Some(_) => Err(Fault::Refused(CacheError::Refused("somebody else writes other things there".to_owned()))),
    }
}

/// Waits for a pipeline's answers: of which things, as `of` tells for each command, another type was in the way.
async fn answers(pipeline: &Pipeline<Client>, of: &[usize]) -> Result<Vec<usize>, Fault> {
    let answers: Result<Vec<FredResult<Value>>, _> = timeout(PIPELINE_MAX, pipeline.try_all::<Value>()).await;
    let answers = answers.map_err(|_| {
        let why = format!("it has not answered for {} s", PIPELINE_MAX.as_secs());
        Fault::Unreachable(CacheError::Unreachable(why))
    })?;
    let is_whole = answers.len() == of.len();
    let mut in_the_way = Vec::new();
    for (answer, index) in answers.into_iter().zip(of) {
        match answer {
            Ok(_) => {}
            Err(why) if why.details().contains("WRONGTYPE") => in_the_way.push(*index),
            Err(why) => return Err(why.into()),
        }
    }
    if is_whole { Ok(in_the_way) } else { Err(Error::new(ErrorKind::IO, "the connection has ended").into()) }
}

/// A word of the buffer, which is shared, not copied.
fn text(texts: &Bytes, (from, to): Word) -> Value {
    Value::Bytes(texts.slice(from as usize..to as usize))
}

/// Queues one command, which begins with the name of a key.
async fn command(pipeline: &Pipeline<Client>, name: &'static str, words: Vec<Value>) -> Result<(), Error> {
    pipeline.custom(CustomCommand::new_static(name, ClusterHash::FirstKey, false), words).await
}

/// Queues the commands of one thing; how many.
async fn queue(pipeline: &Pipeline<Client>, texts: &Bytes, (load, words): &(Load, Vec<Word>)) -> Result<usize, Error> {
    let key = || text(texts, words[0]);
    let number = |number: i128| Value::from(number.to_string());
    let all = || words.iter().map(|word| text(texts, *word)).collect::<Vec<_>>();
    match load.act {
        Act::Delete => {
            command(pipeline, "DEL", vec![key()]).await?;
            Ok(1)
        }
        Act::Text(ends_ms) => {
            let mut words = all();
            words.extend([Value::from_static_str("PXAT"), number(ends_ms.into())]);
            command(pipeline, "SET", words).await?;
            Ok(1)
        }
        Act::Fields(ends_ms) => {
            command(pipeline, "HSET", all()).await?;
            command(pipeline, "PEXPIREAT", vec![key(), number(ends_ms.into())]).await?;
            Ok(2)
        }
        Act::Members => {
            let mut count = 0;
            for members in words[1..].chunks(2 * MEMBERS_MAX) {
                let members = members.iter().map(|word| text(texts, *word));
                command(pipeline, "ZADD", [key()].into_iter().chain(members).collect()).await?;
                count += 1;
            }
            let Some(lifetime_s) = load.lifetime_s else { return Ok(count) };
            command(pipeline, "EXPIRE", vec![key(), number(lifetime_s.into())]).await?;
            Ok(count + 1)
        }
        Act::Trim(since, keep) => {
            let below = Value::from(format!("({since}"));
            command(pipeline, "ZREMRANGEBYSCORE", vec![key(), Value::from_static_str("-inf"), below]).await?;
            let last = -(i128::try_from(keep).unwrap_or(i128::MAX - 1) + 1);
            command(pipeline, "ZREMRANGEBYRANK", vec![key(), Value::from_static_str("0"), number(last)]).await?;
            Ok(2)
        }
    }
}
