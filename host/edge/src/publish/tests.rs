use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    clock::{ManualClock, UnixMs},
    directory::{Directory, Listed, TenantRecord},
    key::{ApiKey, SecretHash},
    snapshot::{HostMatch, Snapshot},
    tenant::{Status, Tenant, TenantId},
};
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::*;

/// Tenants that a sequence is about.
const TENANTS: u8 = 12;
/// Changes that a publisher may find together: a watch channel shows the last one only.
const TOGETHER_MAX: usize = 4;

const PLANS: &str = r#"
[[plan]]
name = "small"
[plan.quotas]
max_users = 1
max_projects = 1
max_api_calls_per_month = 10
max_storage_mb = 1
max_ai_requests_per_day = 1
max_concurrent_sessions = 1

[[plan]]
name = "large"
rate = { per_second = 50, burst = 100 }
[plan.quotas]
max_users = 9
max_projects = 9
max_api_calls_per_month = 90
max_storage_mb = 9
max_ai_requests_per_day = 9
max_concurrent_sessions = 9
"#;

const REGIONS: &str = r#"
[[region]]
name = "us-east-1"
upstreams = ["127.0.0.1:1"]

[[region]]
name = "eu-central-1"
upstreams = ["127.0.0.1:2"]

[[group]]
name = "us"
regions = ["us-east-1"]

[[group]]
name = "eu"
regions = ["eu-central-1"]
"#;

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Rename(u8, u8),
    Plan(u8, u8),
    Region(u8, bool),
    Status(u8, bool),
    Domain(u8, u8),
    Move(u8, Option<u8>),
    IssueKey(u8, u8),
    RevokeKeys(u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = || 0..TENANTS;
    prop_oneof![
        5 => tenant().prop_map(Step::Create),
        2 => (tenant(), any::<u8>()).prop_map(|(tenant, slug)| Step::Rename(tenant, slug)),
        2 => (tenant(), 0_u8..3).prop_map(|(tenant, plan)| Step::Plan(tenant, plan)),
        1 => (tenant(), any::<bool>()).prop_map(|(tenant, eu)| Step::Region(tenant, eu)),
        2 => (tenant(), any::<bool>()).prop_map(|(tenant, on)| Step::Status(tenant, on)),
        2 => (tenant(), 0_u8..4).prop_map(|(tenant, domain)| Step::Domain(tenant, domain)),
        3 => (tenant(), proptest::option::of(tenant())).prop_map(|(t, p)| Step::Move(t, p)),
        2 => (tenant(), any::<u8>()).prop_map(|(tenant, key)| Step::IssueKey(tenant, key)),
        1 => tenant().prop_map(Step::RevokeKeys),
        1 => tenant().prop_map(Step::Delete),
    ]
}

fn id(tenant: u8) -> TenantId {
    TenantId(Uuid::from_u128(u128::from(tenant) + 1))
}

fn new(tenant: u8) -> Tenant {
    Tenant {
        id: id(tenant),
        slug: format!("t{tenant}").parse().expect("a slug"),
        organization_name: String::new(),
        display_name: String::new(),
        admin_email: String::new(),
        plan: "small".to_owned(),
        data_residency: "us".to_owned(),
        parent: None,
        status: Status::Active,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: BTreeMap::new(),
        dated_quotas: BTreeMap::new(),
        quota_anchor: Default::default(),
        attributes: BTreeMap::new(),
        created_at: UnixMs(0),
        version: 1,
    }
}

fn apply(directory: &mut Directory, step: &Step) {
    directory.version += 1;
    let change = |directory: &mut Directory, tenant: u8, change: &dyn Fn(&mut Tenant)| {
        let Some(listed) = directory.tenants.find(&id(tenant)).cloned() else { return };
        let mut record = TenantRecord::clone(&listed.record);
        change(&mut record.tenant);
        directory.tenants.insert(Listed { record: Arc::new(record), ..listed });
    };
    match *step {
        Step::Create(tenant) => {
            if directory.record(id(tenant)).is_none() {
                let record = TenantRecord {
                    tenant: new(tenant),
                    secrets: BTreeMap::new(),
                    pools: Default::default(),
                };
                let listed = Listed { record: Arc::new(record), keys: Arc::default() };
                directory.tenants.insert(listed);
            }
        }
        Step::Rename(tenant, to) => {
            let to = format!("t{tenant}-{to}");
            change(directory, tenant, &|tenant| tenant.slug = to.parse().expect("a slug"));
        }
        Step::Plan(tenant, plan) => {
            let plan = ["small", "large", "small"][usize::from(plan)];
            change(directory, tenant, &|tenant| tenant.plan = plan.to_owned());
        }
        Step::Region(tenant, eu) => {
            let group = if eu { "eu" } else { "us" };
            change(directory, tenant, &|tenant| tenant.data_residency = group.to_owned());
        }
        Step::Status(tenant, on) => {
            let status = if on { Status::Active } else { Status::Suspended };
            change(directory, tenant, &|tenant| tenant.status = status);
        }
        Step::Domain(tenant, domain) => {
            // A domain goes from whoever has it: both change at once.
            let domain = format!("d{domain}.example");
            for other in 0..TENANTS {
                change(directory, other, &|tenant| tenant.custom_domains.retain(|d| *d != domain));
            }
            change(directory, tenant, &|tenant| tenant.custom_domains.push(domain.clone()));
        }
        Step::Move(tenant, parent) => {
            let parent = parent.map(id);
            let mut above = parent;
            while let Some(ancestor) = above {
                if ancestor == id(tenant) {
                    return;
                }
                above = directory.record(ancestor).and_then(|record| record.tenant.parent);
            }
            change(directory, tenant, &|tenant| tenant.parent = parent);
        }
        Step::IssueKey(tenant, key) => {
            let Some(listed) = directory.tenants.find(&id(tenant)).cloned() else { return };
            let (name, hash) = (format!("{tenant}-{key}").into(), SecretHash([key; 32]));
            let key = ApiKey { id: name, tenant: id(tenant), hash, expires_at: None };
            let keys: Vec<_> = listed.keys.iter().cloned().chain([Arc::new(key)]).collect();
            directory.tenants.insert(Listed { keys: keys.into(), ..listed });
        }
        Step::RevokeKeys(tenant) => {
            let Some(listed) = directory.tenants.find(&id(tenant)).cloned() else { return };
            directory.tenants.insert(Listed { keys: Arc::default(), ..listed });
        }
        Step::Delete(tenant) => drop(directory.tenants.remove(&id(tenant))),
    }
}

/// Every name that a sequence can have given to a tenant or a key.
fn names(steps: &[Step]) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut hosts: BTreeSet<String> = (0..4).map(|n| format!("d{n}.example")).collect();
    hosts.extend((0..TENANTS).map(|n| format!("t{n}.localhost")));
    let mut keys = BTreeSet::new();
    for step in steps {
        match step {
            Step::Rename(tenant, to) => drop(hosts.insert(format!("t{tenant}-{to}.localhost"))),
            Step::IssueKey(tenant, key) => drop(keys.insert(format!("{tenant}-{key}"))),
            _ => {}
        }
    }
    (hosts, keys)
}

/// What a snapshot answers, in words.
fn shape(snapshot: &Snapshot, steps: &[Step]) -> Vec<String> {
    let (hosts, keys) = names(steps);
    let mut shape = vec![snapshot.tenant_count().to_string()];
    shape.extend(hosts.iter().map(|host| match snapshot.host(host) {
        HostMatch::Subdomain(entry) => format!("{host}: {} by slug", entry.id()),
        HostMatch::CustomDomain(entry) => format!("{host}: {} by domain", entry.id()),
        HostMatch::Shared | HostMatch::Unknown => format!("{host}: nobody"),
    }));
    shape.extend(keys.iter().map(|key| match snapshot.key(key) {
        Some(held) => format!("{key}: {}", held.tenant),
        None => format!("{key}: nobody"),
    }));
    for entry in (0..TENANTS).filter_map(|tenant| snapshot.tenant(id(tenant))) {
        let record = Arc::as_ptr(&entry.record);
        let above: Vec<_> = entry.ancestors.iter().map(Arc::as_ptr).collect();
        let (plan, group, home) = (&entry.plan.name, &entry.group.name, &entry.home.name);
        let (rate, admitted) = (entry.rate, entry.admission(UnixMs(1)));
        let chain = entry.chain.policies().len();
        shape.push(format!(
            "{record:?} {plan} {group} {home} {rate:?} {chain} {above:?} {admitted:?} {:?}",
            entry.quotas
        ));
    }
    shape
}

struct World {
    dir: tempfile::TempDir,
    sandbox: Arc<Sandbox>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("plans.toml", PLANS);
        write("regions.toml", REGIONS);
        write("routes.toml", "[[route]]\nname = \"all\"\npath = \"/**\"\n");
        write("tenants/t3.toml", "[rate]\nper_second = 7\nburst = 7\n");
        let config = SandboxConfig { slots: 1, ..SandboxConfig::default() };
        let sandbox = Sandbox::new(config, Arc::new(ManualClock::default())).expect("a sandbox");
        Self { dir, sandbox }
    }

    async fn publisher(&self, directory: &Directory) -> Publisher {
        let dir = self.dir.path().to_owned();
        let mut preparer = Preparer::new(dir.clone(), Arc::clone(&self.sandbox));
        let prepared = preparer.prepare().await.unwrap_or_else(|bad| panic!("{bad:?}"));
        let channels = Channels {
            snapshot: watch::Sender::default(),
            catalog: watch::Sender::default(),
            reload: watch::Sender::default(),
            applied: watch::Sender::default(),
            plugins: None,
        };
        let (sandbox, clock) = (Arc::clone(&self.sandbox), Arc::new(ManualClock::default()));
        let (base, directory) = ("localhost".to_owned(), Arc::new(directory.clone()));
        Publisher::start(dir, prepared, base, sandbox, clock, directory, channels)
            .await
            .unwrap_or_else(|bad| panic!("{bad:?}"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changes_one_after_the_other_lead_to_what_a_start_from_scratch_leads_to(
        steps in vec(step(), 1..60), together in vec(1..=TOGETHER_MAX, 60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new();
            let mut directory = Directory::default();
            let mut publisher = world.publisher(&directory).await;
            let (mut rest, mut together) = (steps.as_slice(), together.into_iter());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(together.next().unwrap_or(1).min(rest.len()));
                now.iter().for_each(|step| apply(&mut directory, step));
                let before = Arc::clone(&publisher.snapshot);
                publisher.directory_changed(Arc::new(directory.clone())).await;
                prop_assert_eq!(publisher.snapshot.version, before.version + 1);
                prop_assert_eq!(*publisher.channels.applied.borrow(), directory.version);
                rest = later;
            }
            let scratch = world.publisher(&directory).await;
            prop_assert_eq!(shape(&publisher.snapshot, &steps), shape(&scratch.snapshot, &steps));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_change_leaves_the_entries_of_others_as_they_are_and_renews_those_below_it() {
    let world = World::new();
    let mut directory = Directory::default();
    for step in [Step::Create(0), Step::Create(1), Step::Create(2), Step::Move(1, Some(0))] {
        apply(&mut directory, &step);
    }
    let mut publisher = world.publisher(&directory).await;
    let before = Arc::clone(&publisher.snapshot);
    apply(&mut directory, &Step::Status(0, false));
    publisher.directory_changed(Arc::new(directory.clone())).await;
    let now = Arc::clone(&publisher.snapshot);
    let is_kept = |tenant| {
        let of = |snapshot: &Snapshot| snapshot.tenant(id(tenant)).map(Arc::as_ptr);
        of(&before) == of(&now)
    };
    assert_eq!([0, 1, 2].map(is_kept), [false, false, true]);
    assert!(now.tenant(id(1)).expect("a child").admission(UnixMs(1)).is_err());
    assert!(before.tenant(id(1)).expect("a child").admission(UnixMs(1)).is_ok());
}

#[tokio::test]
async fn a_tenant_whose_plan_is_unknown_keeps_the_one_it_had_and_a_new_one_is_left_out() {
    let world = World::new();
    let mut directory = Directory::default();
    apply(&mut directory, &Step::Create(0));
    let mut publisher = world.publisher(&directory).await;
    for tenant in [0, 1] {
        let unknown = Tenant { plan: "gone".to_owned(), ..new(tenant) };
        let record = Arc::new(TenantRecord {
            tenant: unknown,
            secrets: BTreeMap::new(),
            pools: Default::default(),
        });
        directory.tenants.insert(Listed { record, keys: Arc::default() });
    }
    publisher.directory_changed(Arc::new(directory)).await;
    let kept = publisher.snapshot.tenant(id(0)).expect("the old tenant");
    assert_eq!((kept.plan.name.as_str(), kept.record.tenant.plan.as_str()), ("small", "gone"));
    assert!(publisher.snapshot.tenant(id(1)).is_none());
}
