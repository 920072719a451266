-- Numbers of leases, and tokens kept aside.

-- Of the folded sums: tokens that no request had (shares of lost holders), and tokens that
-- requests gave back.
ALTER TABLE quota_window ADD COLUMN folded_wasted bigint NOT NULL DEFAULT 0;
ALTER TABLE quota_window ADD COLUMN folded_refunded bigint NOT NULL DEFAULT 0;

-- 1: its holder keeps the tokens for the time in which nobody answers (overdraft). Such an
-- epoch is not one of the two that a holder may have open, and none of these close it.
ALTER TABLE quota_epoch
    ADD COLUMN kept bigint NOT NULL DEFAULT 0 CHECK (kept IN (0, 1));
