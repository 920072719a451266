//! The ports of the quota ledger: the durable authority and the dispatcher of leases.
