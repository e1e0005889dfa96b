-- Whether a run is a singleton of its workflow and key: known after its end, for those who retry, rewind or fork it.
alter table outlive.runs add column singleton boolean not null default false;
