//! The base model: two Redis servers, their data on disk and in memory, and two concurrent
//! installers.
//!
//! A grant counts as spent at once, so that only the fence and the install rule protect the
//! limit. Nothing bounds how often a server restarts, fails over or loses its data: run ids
//! and replication ids are kept as what they are equal to, which makes the space finite.
//! Conservative: a restart keeps the replication id, as a server that loads it from its
//! dump does.

use crate::{
    checker::{Model, Next},
    codec::{Codec, Fields},
};

pub(crate) const OVER_ADMISSION: &str = "more spent than the limit";
const TRANCHES_EXCEEDED: &str = "more spent than the tranches";

/// Which rules hold; removing one is one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A ledger is usable only in the process life for which its epoch was opened.
    pub run_id: bool,
    /// … and only with the data history.
    pub replid: bool,
    /// A permit is sent once.
    pub install_once: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self { run_id: true, replid: true, install_once: true };
}

pub(crate) struct Fencing {
    pub rules: Rules,
    pub limit: u8,
    pub tranche: u8,
    pub epochs: u8,
}

const SERVERS: usize = 2;
const INSTALLERS: usize = 2;
/// Replication ids at once: of servers, ledgers and permits. The last is always free.
const REPLIDS: usize = 9;

/// A run is named by the server that runs it: a run that ended is never met again.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Fence {
    run: u8,
    replid: u8,
}

/// Epoch 0: no ledger, no permit.
#[derive(Clone, Copy, Default)]
struct Tranche {
    fence: Fence,
    epoch: u8,
    left: u8,
    next: u8,
    next_left: u8,
}

#[derive(Clone, Copy, Default)]
struct Server {
    master: bool,
    replid: u8,
    memory: Tranche,
    disk: Tranche,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    granted: u8,
    latest: u8,
    spent: u8,
    servers: [Server; SERVERS],
    permits: [Tranche; INSTALLERS],
}

impl Tranche {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.fence.run, 1);
        codec.field(&mut self.fence.replid, 4);
        for value in [&mut self.epoch, &mut self.left, &mut self.next, &mut self.next_left] {
            codec.field(value, 2);
        }
    }
}

impl Fields for State {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.granted, 3);
        codec.field(&mut self.latest, 2);
        codec.field(&mut self.spent, 3);
        for server in &mut self.servers {
            codec.flag(&mut server.master);
            codec.field(&mut server.replid, 4);
            server.memory.fields(codec);
            server.disk.fields(codec);
        }
        for permit in &mut self.permits {
            permit.fields(codec);
        }
    }
}

impl State {
    fn fence(&self, server: usize) -> Fence {
        Fence { run: server as u8, replid: self.servers[server].replid }
    }

    fn tranches(&mut self) -> impl Iterator<Item = &mut Tranche> {
        let stored =
            self.servers.iter_mut().flat_map(|server| [&mut server.memory, &mut server.disk]);
        stored.chain(&mut self.permits)
    }

    /// Servers and installers are alike, and names mean nothing: equal futures are one
    /// state. Where a schedule may have to be read, nobody changes names.
    fn canonical(mut self, rules: Rules) -> Self {
        if rules == Rules::ALL {
            let permit = |permit: &Tranche| (permit.epoch, permit.left);
            if permit(&self.permits[0]) < permit(&self.permits[1]) {
                self.permits.swap(0, 1);
            }
            let data = |data: &Tranche| (data.epoch, data.left, data.next);
            let server =
                |server: &Server| (server.master, data(&server.memory), data(&server.disk));
            if server(&self.servers[0]) < server(&self.servers[1]) {
                self.servers.swap(0, 1);
                self.tranches().filter(|t| t.epoch != 0).for_each(|t| t.fence.run ^= 1);
            }
        }
        self.with_named_histories()
    }

    /// Names replication ids in the order in which they are met: only equality matters.
    fn with_named_histories(mut self) -> Self {
        let mut names = [0_u8; REPLIDS + 1];
        let mut known = 0;
        let mut rename = |id: &mut u8| {
            let name = &mut names[usize::from(*id)];
            if *name == 0 {
                known += 1;
                *name = known;
            }
            *id = *name;
        };
        for server in &mut self.servers {
            rename(&mut server.replid);
        }
        for tranche in self.tranches().filter(|tranche| tranche.epoch != 0) {
            rename(&mut tranche.fence.replid);
        }
        self
    }
}

impl Fencing {
    fn usable(&self, tranche: &Tranche, fence: Fence) -> bool {
        tranche.epoch != 0
            && (!self.rules.run_id || tranche.fence.run == fence.run)
            && (!self.rules.replid || tranche.fence.replid == fence.replid)
    }

    fn open_and_install(&self, state: &State, next: &mut Next<State>) {
        for installer in 0..INSTALLERS {
            let permit = state.permits[installer];
            if permit.epoch != 0 {
                let mut then = *state;
                then.permits[installer] = Tranche::default();
                next.to(
                    then.canonical(self.rules),
                    format_args!("installer {installer} abandons its permit"),
                );
            }
            for server in 0..SERVERS {
                if permit.epoch == 0 {
                    self.open(state, installer, server, next);
                } else if self.usable(&permit, state.fence(server)) {
                    self.install(state, installer, server, next);
                }
            }
        }
    }

    fn open(&self, state: &State, installer: usize, server: usize, next: &mut Next<State>) {
        if !state.servers[server].master || state.latest == self.epochs {
            return;
        }
        for size in 1..=self.tranche.min(self.limit - state.granted) {
            let mut then = *state;
            then.latest += 1;
            then.granted += size;
            let fence = state.fence(server);
            then.permits[installer] =
                Tranche { fence, epoch: then.latest, left: size, ..Tranche::default() };
            next.to(
                then.canonical(self.rules),
                format_args!(
                    "installer {installer} opens epoch {} of {size} for server {server}",
                    then.latest
                ),
            );
        }
    }

    fn install(&self, state: &State, installer: usize, server: usize, next: &mut Next<State>) {
        let mut then = *state;
        let permit = then.permits[installer];
        if self.rules.install_once {
            then.permits[installer] = Tranche::default();
        }
        let here = &mut then.servers[server];
        let live = self.usable(&here.memory, state.fence(server));
        let taken =
            here.master && (!live || here.memory.epoch.max(here.memory.next) < permit.epoch);
        if taken && live && here.memory.left > 0 {
            here.memory.next = permit.epoch;
            here.memory.next_left = permit.left;
        } else if taken {
            here.memory = permit;
        }
        let done = if taken { "installs" } else { "is refused" };
        next.to(
            then.canonical(self.rules),
            format_args!("installer {installer} {done} epoch {} at server {server}", permit.epoch),
        );
    }

    fn serve(&self, state: &State, server: usize, next: &mut Next<State>) {
        let here = &state.servers[server];
        if !here.master || !self.usable(&here.memory, state.fence(server)) {
            return;
        }
        let mut then = *state;
        let ledger = &mut then.servers[server].memory;
        if ledger.left == 0 {
            (ledger.epoch, ledger.left) = (ledger.next, ledger.next_left);
            (ledger.next, ledger.next_left) = (0, 0);
        }
        if ledger.left > 0 {
            ledger.left -= 1;
            then.spent += 1;
            next.to(
                then.canonical(self.rules),
                format_args!("server {server} grants one token, spent at once"),
            );
        }
    }

    fn store(&self, state: &State, server: usize, next: &mut Next<State>) {
        let mut then = *state;
        then.servers[server].disk = then.servers[server].memory;
        next.to(then.canonical(self.rules), format_args!("server {server} saves a snapshot"));

        let mut then = *state;
        then.servers[server].memory = Tranche::default();
        next.to(then.canonical(self.rules), format_args!("server {server} is flushed"));

        let mut then = *state;
        then.servers[server].memory = then.servers[server].disk;
        if self.rules.run_id {
            // Nothing of the run that ended is ever met again.
            for tranche in then.tranches().filter(|t| t.epoch != 0 && t.fence.run == server as u8) {
                *tranche = Tranche::default();
            }
        }
        next.to(
            then.canonical(self.rules),
            format_args!("server {server} restarts from its snapshot"),
        );
    }

    fn roles(&self, state: &State, server: usize, next: &mut Next<State>) {
        let mut then = *state;
        if state.servers[server].master {
            then.servers[server].master = false;
            next.to(then.canonical(self.rules), format_args!("server {server} is demoted"));
            return;
        }
        then.servers[server].master = true;
        then.servers[server].replid = REPLIDS as u8;
        next.to(then.canonical(self.rules), format_args!("server {server} is promoted"));

        let master = state.servers[1 - server];
        if master.master {
            let mut then = *state;
            then.servers[server].memory = master.memory;
            then.servers[server].replid = master.replid;
            next.to(
                then.canonical(self.rules),
                format_args!("server {server} replicates from server {}", 1 - server),
            );
        }
    }
}

impl Model for Fencing {
    type State = State;

    fn start(&self) -> State {
        let mut state = State::default();
        for (server, id) in state.servers.iter_mut().zip(1..) {
            server.replid = id;
        }
        state.servers[0].master = true;
        state
    }

    fn steps(&self, state: &State, next: &mut Next<State>) {
        self.open_and_install(state, next);
        for server in 0..SERVERS {
            self.serve(state, server, next);
            self.store(state, server, next);
            self.roles(state, server, next);
        }
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.spent > self.limit {
            Some(OVER_ADMISSION)
        } else if self.rules == Rules::ALL && state.spent > state.granted {
            Some(TRANCHES_EXCEEDED)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::check;

    const STATES_MAX: usize = 8_000_000;

    fn without(rules: Rules, title: &str) {
        let model = Fencing { rules, limit: 3, tranche: 2, epochs: 3 };
        check::<3, _>(title, &model, STATES_MAX).expect_broken(OVER_ADMISSION);
    }

    #[test]
    fn two_servers_never_hand_out_more_than_the_limit() {
        let model = Fencing { rules: Rules::ALL, limit: 3, tranche: 2, epochs: 3 };
        let states = check::<3, _>("base model", &model, STATES_MAX).expect_safe();
        assert!(states > 100_000, "the model lost most of its states: {states}");
    }

    #[test]
    fn without_any_fence_old_data_is_spent_twice() {
        without(Rules { run_id: false, replid: false, ..Rules::ALL }, "no fence");
    }

    #[test]
    fn without_the_run_id_a_restart_from_a_dump_is_spent_twice() {
        without(Rules { run_id: false, ..Rules::ALL }, "no run_id in the fence");
    }

    #[test]
    fn without_the_replication_id_a_regained_role_is_spent_twice() {
        without(Rules { replid: false, ..Rules::ALL }, "no master_replid in the fence");
    }

    #[test]
    fn a_permit_installed_twice_is_spent_twice() {
        without(Rules { install_once: false, ..Rules::ALL }, "install more than once");
    }
}
