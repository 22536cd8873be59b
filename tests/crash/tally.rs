//! Compares the recorded answers with the stored links and audit records.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::Ordering;

use sqlx::ConnectOptions;

use super::client::{Load, Sent};
use super::cluster::Cluster;

/// The counts of all rounds so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that were answered with code 0.
    answered: usize,
    /// Links in these answers.
    pub(crate) acknowledged: usize,
    /// Of these, the links that are not stored as they were sent.
    pub(crate) lost: usize,
    /// Requests whose first attempt was not answered.
    unanswered: usize,
    /// Of these with a key, those whose lost answer was replayed.
    replayed: usize,
    /// Of these with a key, those that only the second attempt carried out.
    carried_out: usize,
    /// Of these without a key, those that were fully applied.
    applied: usize,
    /// Of these without a key, those that were not applied.
    not_applied: usize,
    /// Requests that were partially applied or carried out twice, or whose links and audit records
    /// disagree.
    broken: Vec<String>,
}

impl Tally {
    pub(crate) fn is_sound(&self) -> bool {
        self.lost == 0 && self.broken.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            acknowledged,
            lost,
            unanswered,
            replayed,
            carried_out,
            applied,
            not_applied,
            broken,
        } = self;
        writeln!(
            f,
            "answered      {answered} requests, acknowledged {acknowledged} links, lost {lost}"
        )?;
        writeln!(f, "not answered  {unanswered} requests")?;
        writeln!(
            f,
            "  with a key, sent again: {replayed} had been committed and were replayed, {carried_out} had not"
        )?;
        writeln!(
            f,
            "  without a key: {applied} were fully applied, {not_applied} were not applied"
        )?;
        write!(f, "partially applied, or inconsistent: {}", broken.len())
    }
}

/// The audit record of one request.
#[derive(Debug)]
struct Record {
    request_id: String,
    ids: Vec<i64>,
    pairs: Vec<(i64, i64)>,
}

/// An audit record: user, request id, sources, targets and link ids.
type Row = (String, String, Vec<i64>, Vec<i64>, Vec<i64>);

/// Counts the outcome of all requests sent so far.
pub(crate) async fn count(cluster: &Cluster, load: &Load) -> Tally {
    let mut conn = cluster.options().connect().await.unwrap();
    let links: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "select link.id, key, source_id, target_id
         from cmdb.instance_association link
         join cmdb.model_association a on a.id = model_association_id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let records: Vec<Row> = sqlx::query_as(
        "select user_name, request_id, source_ids, target_ids,
             array(
                 select id
                 from unnest(association_ids) r, generate_series(lower(r), upper(r) - 1) id
                 order by id)
         from cmdb.audit_log",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut stored = Stored::default();
    for (id, key, source, target) in links {
        stored.sources.insert((key.clone(), source));
        stored.targets.insert((key.clone(), target));
        stored.pairs.insert((key.clone(), source, target));
        stored.links.insert(id, (key, source, target));
    }
    let mut broken = Vec::new();
    for (user, request_id, sources, targets, ids) in records {
        let pairs = sources.into_iter().zip(targets).collect();
        let record = Record { request_id, ids, pairs };
        if let Some(first) = stored.records.insert(user, record) {
            broken.push(format!("carried out twice: {first:?}"));
        }
    }
    let mut tally =
        Tally { broken, unanswered: load.unanswered.load(Ordering::SeqCst), ..Tally::default() };
    for sent in load.sent.lock().unwrap().iter() {
        tally.add(sent, &stored);
    }
    tally
}

#[derive(Default)]
struct Stored {
    links: HashMap<i64, (String, i64, i64)>,
    pairs: HashSet<(String, i64, i64)>,
    sources: HashSet<(String, i64)>,
    targets: HashSet<(String, i64)>,
    records: HashMap<String, Record>,
}

impl Tally {
    fn add(&mut self, sent: &Sent, stored: &Stored) {
        let record = stored.records.get(&sent.user);
        if let Some(record) = record
            && let Some(reason) = inconsistency(sent, record, stored)
        {
            self.broken.push(format!("{reason}: {sent:?}, {record:?}"));
        }
        let Some(answer) = &sent.answer else {
            *(if record.is_some() { &mut self.applied } else { &mut self.not_applied }) += 1;
            return;
        };
        self.answered += 1;
        let created = answer["data"]["success_created"].as_object().unwrap();
        self.acknowledged += created.len();
        for (index, id) in created {
            let (source, target) = sent.details[index.parse::<usize>().unwrap()];
            let link = stored.links.get(&id.as_i64().unwrap());
            self.lost += usize::from(link != Some(&(sent.association.to_owned(), source, target)));
        }
        let answered = (created.len(), answer["request_id"].as_str().unwrap());
        let recorded =
            record.map_or((0, answered.1), |record| (record.ids.len(), &*record.request_id));
        if answered != recorded {
            self.broken.push(format!("the answer and the record disagree: {sent:?}, {record:?}"));
        }
        if sent.is_replayed {
            self.replayed += 1;
        }
        self.carried_out += usize::from(sent.was_retried && !sent.is_replayed);
    }
}

/// How the links of a request contradict its audit record or its details, if they do.
fn inconsistency(sent: &Sent, record: &Record, stored: &Stored) -> Option<&'static str> {
    let link = |(source, target)| (sent.association.to_owned(), source, target);
    let is_stored = |(id, pair): (&i64, &(i64, i64))| stored.links.get(id) == Some(&link(*pair));
    if record.ids.len() != record.pairs.len()
        || !record.ids.iter().zip(&record.pairs).all(is_stored)
    {
        return Some("the record and the links disagree");
    }
    // A detail without a link of its own was refused for a conflicting link, and links are never
    // deleted here.
    let has_link_or_conflict = |&(source, target): &(i64, i64)| {
        let has_source = stored.sources.contains(&(sent.association.to_owned(), source));
        let has_target = stored.targets.contains(&(sent.association.to_owned(), target));
        match sent.association {
            "bk_switch_run_host" => has_source || has_target,
            "bk_switch_connect_host" => has_target,
            _ => stored.pairs.contains(&link((source, target))),
        }
    };
    (!sent.details.iter().all(has_link_or_conflict)).then_some("a detail was not applied")
}
