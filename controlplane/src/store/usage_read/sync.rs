//! What has come into a store since somebody last looked: for whoever keeps a copy of it elsewhere.
//!
//! Everything that comes has a number of the transaction that it came with, and all below a bound is there for whoever
//! asks later. So a copy is up to date with all below the bound that was asked for before it was made, and the next look
//! begins there. A transaction that stays open holds the bound back: what comes is then told of late, never left out.

use super::answer::{self, Part};
use super::report_log;
use super::statement::Statement;
use super::{ReportLog, UsageLine};
use crate::store::session::{Access, deadline};
use crate::store::sql::{Source, SqlStore, call};
use crate::store::value::{Row, Value, stored_number};
use crate::store::{PAGE_MAX, StoreError, Stored, USE_ROWS_MAX};
use async_trait::async_trait;
use serde_json::json;

/// How far a store has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncMarks {
    /// Which database it is.
    pub identity: String,
    /// Every arrival of usage below this change is there.
    pub usage: i64,
    /// Every report below this change is there.
    pub reports: i64,
    /// Of arrivals up to this change some are told of no more.
    pub pruned: i64,
    /// As [`crate::store::Pulse::keys`].
    pub keys: i64,
}

/// Below what a [`Witness`] is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessMarks {
    /// Arrivals of usage below this change.
    pub usage: i64,
    /// Reports below this change.
    pub reports: i64,
    /// Entries of the audit trail up to this one: there is one of each change of a key.
    pub audit: i64,
}

/// What came last below some marks. A store that was set back and has gone on since has others there; and so has one where
/// nothing has come for so long that the last ones were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The entry of the audit trail; 0: none.
    pub audit: i64,
    /// What all three are, in no form that anybody should read.
    pub text: String,
}

/// Where a list ended: the change of its last item, and which of that change it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArrivalMark {
    /// The change.
    pub change: i64,
    /// Its number.
    pub number: i64,
}

impl ArrivalMark {
    /// Before everything of this change and later ones.
    #[must_use]
    pub const fn before(change: i64) -> Self {
        Self { change: change.saturating_sub(1), number: i64::MAX }
    }
}

/// Rows that came together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedSpan {
    /// Where it stands.
    pub mark: ArrivalMark,
    /// How many they were.
    pub rows: u64,
}

/// What a store tells of what has come.
#[async_trait]
pub trait SyncRead: Send + Sync {
    /// How far it has come.
    async fn sync_marks(&self) -> Stored<SyncMarks>;

    /// What came last below some marks.
    async fn sync_witness(&self, below: &WitnessMarks) -> Stored<Witness>;

    /// Up to `limit` (1,000) arrivals behind `after` whose change is below `before`, in order.
    async fn usage_arrivals(&self, after: &ArrivalMark, before: i64, limit: usize) -> Stored<Vec<ArrivedSpan>>;

    /// The rows of all arrivals behind `after` up to `to`, without those from before `from_ms` (Unix ms). They come in no
    /// order, and some that came another time may be among them: as many as lie between places of one arrival. Within
    /// [`super::REPORT_CALL_MAX`].
    async fn usage_arrived(&self, after: &ArrivalMark, to: &ArrivalMark, from_ms: u64) -> Stored<Vec<UsageLine>>;

    /// Up to `limit` (1,000) reports that came behind `after` and below change `before`, in the order of (change,
    /// number), each with its change. None from before `from_ms` (Unix ms).
    async fn reports_arrived(
        &self,
        after: &(i64, String),
        before: i64,
        from_ms: u64,
        limit: usize,
    ) -> Stored<Vec<(i64, ReportLog)>>;

    /// Hashes of the keys with these numbers, [`USE_ROWS_MAX`] at the most; numbers without a key are left out.
    async fn key_hashes(&self, ids: &[u32]) -> Stored<Vec<(u32, [u8; 32])>>;
}

const MARKS: (&str, &str) = (
    "SELECT identity, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'usage_arrivals'), 0) + 1, reports + 1, \
     pruned, (SELECT value FROM change_counters WHERE name = 'keys') FROM sync_state",
    // A database made anew under the same name, from a copy of this one, is another one; and so is one in another cluster,
    // where that may be asked: a managed server need not allow it. What a statement calls is checked before any of it runs,
    // so the question is a statement of its own.
    // Numbers that no transaction has yet came along from elsewhere.
    "SELECT identity || '-' || (SELECT oid::text FROM pg_database WHERE datname = current_database()) || '-' || CASE WHEN \
     has_function_privilege('pg_control_system()', 'EXECUTE') THEN coalesce(substring(query_to_xml('SELECT \
     system_identifier AS s FROM pg_control_system()', true, true, '')::text FROM '<s>([0-9]+)</s>'), '') ELSE '' END, \
     txid_snapshot_xmin(txid_current_snapshot()), \
     txid_snapshot_xmin(txid_current_snapshot()), CASE WHEN pruned < txid_snapshot_xmax(txid_current_snapshot()) THEN \
     pruned ELSE 0 END, (SELECT value FROM change_counters WHERE name = 'keys') FROM sync_state",
);

/// Looks for the last of each; `$change` is the column that says when an arrival came, as its index has it.
macro_rules! witness {
    ($change:literal) => {
        concat!(
            "SELECT coalesce((SELECT id FROM audit WHERE id <= $3 ORDER BY id DESC LIMIT 1), 0), coalesce((SELECT number || ' ' \
             || arrived_ms || ' ' || segment || ' ' || from_place || ' ' || node FROM usage_arrivals WHERE ",
            $change,
            " < $1 ORDER BY ",
            $change,
            " DESC, number DESC LIMIT 1), '') || ' ; ' || coalesce((SELECT time_ms || ' ' || id FROM report_usage_logs WHERE \
             change < $2 ORDER BY change DESC, id DESC LIMIT 1), '') || ' ; ' || coalesce((SELECT id || ' ' || time_ms || ' ' || \
             target FROM audit WHERE id <= $3 ORDER BY id DESC LIMIT 1), '')"
        )
    };
}
const WITNESS: (&str, &str) = (witness!("number"), witness!("change"));
const ARRIVALS: (&str, &str) = (
    "SELECT number, number, records FROM usage_arrivals WHERE number > $1 AND number < $3 AND $2 IS NOT NULL ORDER BY \
     number LIMIT $4",
    "SELECT change, number, records FROM usage_arrivals WHERE (change, number) > ($1, $2) AND change < $3 ORDER BY \
     change, number LIMIT $4",
);
const REPORTS: &str = "SELECT id, time_ms, key_id, report, protocol, format, query, status, lines, bytes, took_ms, \
    CAST(CASE WHEN complete THEN 1 ELSE 0 END AS BIGINT), node, change FROM report_usage_logs WHERE (change, id) > ($1, \
    $2) AND change < $3 AND time_ms >= $4 ORDER BY change, id LIMIT $5";
const HASHES: (&str, &str) = (
    "SELECT id, hash FROM api_keys WHERE id IN (SELECT value FROM json_each($1))",
    "SELECT id, hash FROM api_keys WHERE id IN (SELECT value::bigint FROM jsonb_array_elements_text($1::jsonb) AS list \
     (value))",
);

/// The rows of arrivals. For each arrival its rows are looked up in the order of time: a server must not join otherwise,
/// by reading all rows there are.
fn arrived<'a>(postgres: bool, after: &ArrivalMark, to: &ArrivalMark, from_ms: u64) -> Stored<Statement<'a>> {
    let mut asked = Statement::new(postgres);
    asked.parts = Part::ROW.to_vec();
    let columns: Vec<String> = Part::ROW.iter().map(|part| format!("l.{}", part.column())).collect();
    let columns = columns.join(", ");
    let places = [after.change, after.number, to.change, to.number].map(|number| asked.bind(Value::Int(number)));
    let [after_change, after_number, to_change, to_number] = places;
    let from = asked.bind(Value::Int(stored_number(from_ms)?));
    let fits = "l.time_ms BETWEEN a.from_ms AND a.to_ms AND l.node = a.node AND l.segment = a.segment AND l.record_offset \
                BETWEEN a.from_place AND a.to_place";
    let which = format!(
        "(a.change, a.number) > ({after_change}, {after_number}) AND (a.change, a.number) <= ({to_change}, {to_number})"
    );
    asked.sql = if postgres {
        format!(
            "COPY (SELECT {columns} FROM usage_arrivals AS a CROSS JOIN LATERAL (SELECT * FROM usage_logs AS l WHERE \
             {fits} AND l.time_ms >= {from} OFFSET 0) AS l WHERE {which}) TO STDOUT (FORMAT binary)"
        )
    } else {
        format!(
            "SELECT {columns} FROM usage_arrivals AS a CROSS JOIN usage_logs AS l WHERE {fits} AND l.time_ms >= {from} \
             AND {which}"
        )
    };
    Ok(asked)
}

/// At most a page.
fn page(limit: usize) -> Value<'static> {
    Value::Int(i64::try_from(limit.min(PAGE_MAX)).unwrap_or(0))
}

#[async_trait]
impl<S: Source> SyncRead for SqlStore<S> {
    async fn sync_marks(&self) -> Stored<SyncMarks> {
        let row = call!(self, Read, |session| async {
            let sql = session.pick(MARKS.0, MARKS.1);
            session.row(sql, &[]).await
        })?;
        let row = row.ok_or_else(|| StoreError::Broken("sync_state has no row: somebody has removed it".to_owned()))?;
        Ok(SyncMarks {
            identity: row.text(0)?,
            usage: row.number(1)?,
            reports: row.number(2)?,
            pruned: row.number(3)?,
            keys: row.number(4)?,
        })
    }

    async fn sync_witness(&self, below: &WitnessMarks) -> Stored<Witness> {
        let values = [below.usage, below.reports, below.audit].map(Value::Int);
        let row = call!(self, Read, |session| async {
            let sql = session.pick(WITNESS.0, WITNESS.1);
            session.row(sql, &values).await
        })?;
        let row = row.ok_or_else(|| StoreError::Broken("a query for one row answered none".to_owned()))?;
        Ok(Witness { audit: row.number(0)?, text: row.text(1)? })
    }

    async fn usage_arrivals(&self, after: &ArrivalMark, before: i64, limit: usize) -> Stored<Vec<ArrivedSpan>> {
        let values = [Value::Int(after.change), Value::Int(after.number), Value::Int(before), page(limit)];
        let rows = call!(self, Read, |session| async {
            let sql = session.pick(ARRIVALS.0, ARRIVALS.1);
            session.rows(sql, &values).await
        })?;
        let span = |row: &Row| {
            let mark = ArrivalMark { change: row.number(0)?, number: row.number(1)? };
            Ok(ArrivedSpan { mark, rows: row.number(2)? })
        };
        rows.iter().map(span).collect()
    }

    async fn usage_arrived(&self, after: &ArrivalMark, to: &ArrivalMark, from_ms: u64) -> Stored<Vec<UsageLine>> {
        let asked = arrived(self.is_postgres(), after, to, from_ms)?;
        answer::lines(&self.report(&asked).await?, &asked.parts)
    }

    async fn reports_arrived(
        &self,
        after: &(i64, String),
        before: i64,
        from_ms: u64,
        limit: usize,
    ) -> Stored<Vec<(i64, ReportLog)>> {
        let from = Value::Int(stored_number(from_ms)?);
        let values = [Value::Int(after.0), Value::Text(&after.1), Value::Int(before), from, page(limit)];
        let rows = call!(self, Read, |session| session.rows(REPORTS, &values))?;
        rows.iter().map(|row| Ok((row.number(13)?, report_log::report(row)?))).collect()
    }

    async fn key_hashes(&self, ids: &[u32]) -> Stored<Vec<(u32, [u8; 32])>> {
        if ids.len() > USE_ROWS_MAX {
            return Err(StoreError::Invalid(format!("at most {USE_ROWS_MAX} keys can be asked for at once")));
        }
        let list = json!(ids).to_string();
        let rows = call!(self, Read, |session| async {
            let sql = session.pick(HASHES.0, HASHES.1);
            session.rows(sql, &[Value::Text(&list)]).await
        })?;
        rows.iter().map(|row| Ok((row.number(0)?, row.bytes(1)?))).collect()
    }
}
