"""DuckDB's functions that a query may call, by how large what they give can be. A name that is on no list
is refused.
"""

MAX_MADE_ITEMS = 4_000
"""Items of a list, or characters, that a function may make by a number of its arguments."""
MAX_ROUNDS = 100_000
"""How often lambdas within lambdas may run for lists that are made from nothing."""
MAX_MADE_ROWS = 10_000_000
"""Rows that range and generate_series may make in FROM."""
MAX_ARRAY = 1_024
"""Items of an array type, which takes the room of all of them in each row."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They give a number, a time, a truth or a text of a few bytes.
FIXED = _names("""
    - * / // % ** ^ ^@ @ ! !__postfix ~~ !~~ ~~* !~~* ~~~ @> <@ && <-> <=>
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil ceiling cos cosh cot degrees divide even exp factorial fdiv
    floor fmod gamma gcd greatest_common_divisor isfinite isinf isnan lcm least_common_multiple lgamma ln log log10 log2
    mod multiply nextafter pi pow power radians round round_even roundbankers sign signbit sin sinh sqrt subtract tan
    tanh trunc xor bit_count
    like_escape not_like_escape ilike_escape not_ilike_escape regexp_full_match regexp_matches
    age century date_add date_diff datediff date_part datepart date_sub datesub date_trunc datetrunc day dayname
    dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era hour isodow isoyear julian
    last_day make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond
    millennium millisecond minute month monthname nanosecond normalized_interval quarter second time_bucket timezone
    timezone_hour timezone_minute to_centuries to_days to_decades to_hours to_microseconds to_millennia to_milliseconds
    to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years week weekday weekofyear year yearweek
    strptime try_strptime
    ascii bit_length char_length character_length chr contains ends_with hamming mismatches hash instr jaccard
    jaro_similarity jaro_winkler_similarity length length_grapheme len md5 md5_number md5_number_lower md5_number_upper
    octet_length ord position prefix suffix sha1 sha256 starts_with strlen strpos unicode
    format_bytes formatreadablesize formatreadabledecimalsize parse_formatted_bytes pg_size_pretty get_bit bit_position
    uuid_extract_timestamp uuid_extract_version
    list_contains list_has array_contains array_has list_has_all list_has_any array_has_all array_has_any list_position
    list_indexof array_position array_indexof array_length cardinality
    list_avg list_count list_sum list_product list_bool_and list_bool_or list_bit_and list_bit_or list_bit_xor
    list_approx_count_distinct list_entropy list_kurtosis list_kurtosis_pop list_mad list_sem list_skewness
    list_stddev_pop list_stddev_samp list_var_pop list_var_samp
    list_distance list_cosine_distance list_cosine_similarity list_dot_product list_inner_product
    list_negative_dot_product list_negative_inner_product array_distance array_cosine_distance array_cosine_similarity
    array_dot_product array_inner_product array_negative_dot_product array_negative_inner_product
    map_contains map_contains_entry map_contains_value struct_contains struct_has struct_position struct_indexof
    json_array_length json_contains json_exists json_valid json_type
    enum_code union_tag user current_user session_user current_role
    """)
# A letter may take another byte in the other case, and once only.
CASED = _names("lower lcase upper ucase")
# They give no more than they are given, together, so many times.
KEPT: dict[str, float] = {
    **dict.fromkeys(
        _names("""
        + add || concat overlay | & << >> ~ set_bit trim ltrim rtrim substr substring substring_grapheme left right
        left_grapheme
        right_grapheme reverse nullif if greatest least split_part regexp_extract url_decode unhex from_hex from_base64
        encode decode unbin from_binary list_value list_pack array_value row struct_pack struct_concat struct_insert
        struct_update struct_extract struct_extract_at struct_keys struct_values map map_from_entries map_entries
        map_keys
        map_values map_concat map_extract map_extract_value element_at list_extract list_element array_extract
        array_slice list_slice list_concat list_cat array_concat array_cat list_append list_prepend array_append
        array_prepend array_push_back array_push_front array_pop_back array_pop_front list_distinct list_unique
        array_distinct array_unique list_intersect array_intersect list_sort array_sort list_reverse_sort
        array_reverse_sort list_reverse array_reverse list_where array_where list_any_value list_first list_last
        list_max
        list_min list_mode list_median array_cross_product json json_extract json_extract_string json_extract_path
        json_extract_path_text json_value -> ->> json_merge_patch json_strip_nulls json_normalize json_remove
        union_extract union_value enum_first enum_last enum_range enum_range_boundary
        variant_extract variant_extract_string variant_typeof path_join flatten
        st_geomfromgeojson st_geomfromwkb st_asbinary st_aswkb
        """),
        1,
    ),
    **dict.fromkeys(
        _names("""
        hex to_hex base64 to_base64 regexp_escape list_string_agg parse_dirname parse_dirpath parse_filename
"""),
        2,
    ),
    **dict.fromkeys(CASED, 1.5),
    **dict.fromkeys(_names("nfc_normalize strip_accents url_encode translate"), 4),
    **dict.fromkeys(
        _names("""
        to_json row_to_json array_to_json json_quote json_array json_object json_structure json_keys bin to_binary
        st_astext st_aswkt st_asgeojson typeof pg_typeof
"""),
        8,
    ),
    # The place of each piece takes more than a piece of one letter.
    **dict.fromkeys(
        _names("""
        string_split str_split split string_to_array string_split_regex str_split_regex regexp_split_to_array
        regexp_extract_all parse_path strftime list_grade_up grade_up array_grade_up list_zip array_zip list_histogram
"""),
        17,
    ),
}
# They call the function that their second argument names.
BY_NAME = _names("list_aggregate list_aggr array_aggregate array_aggr aggregate")
# They give one of their arguments for each part of another.
MULTIPLIED = (
    _names("""
    replace regexp_replace concat_ws array_to_string list_select array_select json_transform from_json
    json_transform_strict from_json_strict json_pretty levenshtein damerau_levenshtein editdist3
""")
    | BY_NAME
)
# What makes something by a number: the place of the number, which has to be written out.
COUNTED = {"lpad": 1, "rpad": 1, "repeat": 1, "list_resize": 1, "array_resize": 1, "bar": 3, "to_base": 2}
SERIES = _names("range generate_series")
FORMATS = _names("format printf")
LAMBDAS = _names("""
    list_transform list_apply array_transform array_apply apply list_filter array_filter filter list_reduce array_reduce
    reduce
""")
REDUCING = _names("list_reduce array_reduce reduce")
FILTERING = _names("list_filter array_filter filter")
# The result depends on when or how often they run: not for steps, where a resumed run would differ from one that was
# not.
UNSTABLE = _names("""
    random uuid gen_random_uuid uuidv4 uuidv7 now today current_date current_time current_timestamp
    get_current_timestamp get_current_time transaction_timestamp localtime localtimestamp current_localtime
    current_localtimestamp ago current_database current_schema current_catalog
""")
AGGREGATES = _names("""
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr
    count count_if count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat
    histogram histogram_exact json_group_array json_group_object json_group_structure kahan_sum kurtosis kurtosis_pop
    last list listagg mad max max_by mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx
    regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness
    stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp variance wavg weighted_avg
""")
WINDOWS = _names("""
    cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
""")
UNNESTS = _names("unnest regexp_split_to_table")
TABLES = SERIES | _names("unnest json_each json_tree regexp_split_to_table")
# What the engine calls for a sign, a field or an item, beside what is written by name.
IMPLIED = _names("""
    struct_extract array_extract map_extract list_extract array_slice list_slice struct_pack list_value row json_extract
    json_extract_string -> ->> contains unnest count_star list_filter list_apply
    """)
SCALARS = FIXED | KEPT.keys() | MULTIPLIED | COUNTED.keys() | SERIES | FORMATS | LAMBDAS | UNSTABLE
ALLOWED = SCALARS | AGGREGATES | WINDOWS | UNNESTS | TABLES
# The engine reads these names as calls where no column has them.
CALLED_WITHOUT_BRACKETS = _names("""
    current_catalog current_date current_schema current_time current_timestamp localtime localtimestamp
""")
TYPES = _names("""
    array bigint bignum binary bit bitstring blob bool boolean bpchar bytea char character date datetime dec decimal
    double enum float float4 float8 geometry guid hugeint int int1 int128 int16 int2 int32 int4 int64 int8 integer
    integral interval json list logical long map null numeric nvarchar oid real row short signed smallint string struct
    text time timestamp timestamptz timestamptz_ns timestamp_ms timestamp_ns timestamp_s timestamp_us timetz time_ns
    tinyint tuple ubigint uhugeint uint128 uint16 uint32 uint64 uint8 uinteger union usmallint utinyint uuid varbinary
    varchar variant varint
""") | {"time with time zone", "timestamp with time zone", "double precision"}
FIXED_TYPES = TYPES - _names("""
    array bignum binary bit bitstring blob bpchar bytea char character enum geometry json list map null nvarchar row
    string struct text tuple union varbinary varchar variant varint
""")
