-- Children by when they ended: the sweep looks at those that ended lately instead of all that waits for one.
create index runs_child_end on outlive.runs (finished_at) where parent_key is not null and status is not null;
