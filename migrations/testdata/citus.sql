-- Stands in for Citus where there is none: functions of its names and signatures that write down how they were called,
-- in a schema that has to be on the search path. It shows what is called and in which order, not that Citus does it.
create schema citus;
create type citus.distribution_type as enum ('hash', 'range', 'append');
create table citus.calls (n integer generated always as identity, call text not null);
create table citus.pg_dist_partition (logicalrelid regclass not null);
create table citus.down (relation regclass not null);

create function citus.called(relation regclass, call text) returns void language plpgsql as $$
begin
    if exists (select from citus.down where down.relation = called.relation) then
        raise exception 'a node is away';
    end if;
    insert into citus.calls (call) values (call);
    insert into citus.pg_dist_partition values (relation);
end $$;

create function citus.create_distributed_table(table_name regclass, distribution_column text,
    distribution_type citus.distribution_type default 'hash', colocate_with text default 'default', shard_count int default null)
returns void language sql as $$
    select citus.called(table_name, format('distributed %s %s %s %s %s', table_name, distribution_column, distribution_type, colocate_with,
        coalesce(shard_count::text, '-'))) $$;

create function citus.create_reference_table(table_name regclass) returns void language sql as $$
    select citus.called(table_name, format('reference %s', table_name)) $$;

create function citus.citus_add_local_table_to_metadata(table_name regclass, cascade_via_foreign_keys boolean default false)
returns void language sql as $$ select citus.called(table_name, format('local %s', table_name)) $$;
