"""Which functions, types and kinds of nodes a query on Postgres may be made of: what only works with what
it is given.
"""

import re

_FUNCTIONS = """
abbrev abs age any_value area array_agg array_append array_cat array_dims array_fill array_length array_lower
array_ndims array_position array_positions array_prepend array_remove array_replace array_reverse array_sample
array_shuffle array_sort array_to_json array_to_string array_to_tsvector array_upper ascii asin asind asinh acos acosd
acosh atan atan2 atan2d atand atanh avg bit bit_and bit_count bit_length bit_or bit_xor bool bool_and bool_or bound_box
box bpchar broadcast btrim bytea cardinality casefold cash_words cbrt ceil ceiling center char char_length
character_length chr cidr circle clock_timestamp concat concat_ws convert convert_from convert_to corr cos cosd cosh cot
cotd count covar_pop covar_samp crc32 crc32c cume_dist current_database date date_add date_bin date_part date_subtract
date_trunc datemultirange daterange decode degrees dense_rank diagonal diameter div encode enum_first enum_last
enum_range erf erfc every exp extract factorial family first_value float4 float8 floor format gamma gcd gen_random_uuid
generate_series generate_subscripts get_bit get_byte greatest grouping height host hostmask inet_merge inet_same_family
initcap int2 int4 int4multirange int4range int8 int8multirange int8range interval is_normalized isclosed isempty
isfinite ishorizontal isopen isparallel isperp isvertical json_agg json_agg_strict json_array_elements
json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text json_extract_path
json_extract_path_text json_object json_object_agg json_object_agg_strict json_object_agg_unique
json_object_agg_unique_strict json_object_keys json_strip_nulls json_to_record json_to_recordset json_to_tsvector
json_typeof jsonb_agg jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text jsonb_array_length
jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert
jsonb_object jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict
jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz
jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_to_tsvector jsonb_typeof
justify_days justify_hours justify_interval lag last_value lcm lead left length lgamma like_escape line ln log log10
lower lower_inc lower_inf lpad lseg ltrim macaddr macaddr8 macaddr8_set7bit make_date make_interval make_time
make_timestamp make_timestamptz masklen max md5 min min_scale mod mode money multirange mxid_age name netmask network
normalize now npoints nth_value ntile num_nonnulls num_nulls numeric nummultirange numnode numrange octet_length oid
overlaps overlay parse_ident path pclose percent_rank percentile_cont percentile_disc phraseto_tsquery pi
plainto_tsquery point polygon popen position pow power quote_ident quote_literal quote_nullable radians radius random
random_normal range_agg range_intersect_agg range_merge rank regexp_count regexp_instr regexp_like regexp_match
regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count
regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number row_to_json
rpad rtrim scale set_bit set_byte set_masklen setweight sha224 sha256 sha384 sha512 sign similar_escape
similar_to_escape sin sind sinh slope split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp
string_agg string_to_array string_to_table strip strpos substr substring sum tan tand tanh text time timeofday timestamp
timestamptz timetz timezone to_ascii to_bin to_char to_date to_hex to_json to_jsonb to_number to_oct to_timestamp
to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale trunc ts_delete ts_filter ts_headline
ts_rank ts_rank_cd tsmultirange tsquery_phrase tsrange tstzmultirange tstzrange tsvector_to_array unicode_assigned
unistr unnest upper upper_inc upper_inf uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 var_pop var_samp
varbit varchar variance version websearch_to_tsquery width width_bucket xid xml xml_is_well_formed
xml_is_well_formed_content xml_is_well_formed_document xmlagg xmlcomment xmlexists xmltext xpath xpath_exists
pg_backend_pid pg_collation_for pg_column_size pg_lsn pg_size_bytes pg_size_pretty pg_sleep pg_sleep_for pg_sleep_until
pg_typeof pg_wal_lsn_diff
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Built-in functions that reach no file, server, session, setting or sequence, no relation by a name, and run no text.

Some take time, some draw a number; none of them leaves anything behind.
"""

_TYPES = """
bit bool box bpchar bytea char cid cidr circle date datemultirange daterange float4 float8 inet int2 int4 int4multirange
int4range int8 int8multirange int8range interval json jsonb jsonpath line lseg macaddr macaddr8 money name nummultirange
numeric numrange oid path pg_lsn point polygon regconfig text tid time timestamp timestamptz timetz tsmultirange tsquery
tsrange tstzmultirange tstzrange tsvector uuid varbit varchar xid xid8 xml record
"""
TYPES = frozenset(_TYPES.split())
TYPES |= {f"_{name}" for name in TYPES}
"""Built-in types; those that look something up by its name, such as regclass, are not among them."""

_KINDS = """
RawStmt SelectStmt ResTarget ColumnRef A_Star A_Const Integer Float Boolean String BitString List TypeCast TypeName
A_Expr BoolExpr NullTest BooleanTest FuncCall NamedArgExpr A_Indirection A_Indices A_ArrayExpr RowExpr SubLink CaseExpr
CaseWhen CoalesceExpr MinMaxExpr CollateClause SQLValueFunction GroupingFunc GroupingSet SortBy WindowDef WithClause
CommonTableExpr CTESearchClause CTECycleClause RangeVar Alias RangeSubselect RangeFunction RangeTableSample
RangeTableFunc RangeTableFuncCol JoinExpr ColumnDef XmlExpr XmlSerialize ParamRef JsonFormat JsonReturning JsonValueExpr
JsonOutput JsonArgument JsonFuncExpr JsonTablePathSpec JsonTable JsonTableColumn JsonKeyValue JsonParseExpr
JsonScalarExpr JsonSerializeExpr JsonObjectConstructor JsonArrayConstructor JsonArrayQueryConstructor JsonAggConstructor
JsonObjectAgg JsonArrayAgg JsonIsPredicate JsonBehavior
"""
KINDS = frozenset(_KINDS.split())
"""The kinds of nodes that a statement which reads is made of."""

_PLAIN = """
RawStmt SelectStmt ResTarget ColumnRef A_Star A_Const Integer Float Boolean String BitString TypeCast TypeName BoolExpr
NullTest BooleanTest RangeVar Alias RangeSubselect WithClause CommonTableExpr
"""
PLAIN = frozenset(_PLAIN.split())
"""Those that name no function and no operator, so that nothing of anybody's is called."""

# What the door knows of the rest without a server: other names may be those of functions of a trusted schema.
KNOWN_TO_REACH = re.compile(
    r"""
    pg_.* | lo_.* | loread | lowrite | dblink.* | http | http_.* | crosstab.* | connectby | xpath_table
    | (query|table|schema|database|cursor)_to_xml.* | ts_stat | ts_rewrite | ts_debug | ts_parse | ts_token_type |
    ts_lexize
    | set_config | current_setting | current_schemas? | nextval | setval | currval | lastval | currtid2? | amvalidate |
    setseed
    | binary_upgrade_.* | brin_.* | gin_clean_pending_list | ri_fkey_.* | plpgsql_.* | postgres_fdw_.* | fmgr_.* |
    txid_.*
    | to_reg.* | reg(class|collation|dictionary|namespace|oper|operator|proc|procedure|role|type) | has_.*_privilege |
    (col|obj|shobj)_description | inet_(client|server)_(addr|port) | acl.* | makeaclitem
    | row_security_active | current_query | querytree | format_type | .*(send|recv|typmodin|typmodout)
    """,
    re.VERBOSE,
)
