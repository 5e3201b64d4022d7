from .checked_reading import (
    FieldPlace as FieldPlace,
    checked_as as checked_as,
    dotted as dotted,
    parse_json as parse_json,
    parse_yaml as parse_yaml,
    read_arrays as read_arrays,
    read_bytes as read_bytes,
    read_json as read_json,
    read_text as read_text,
    read_yaml as read_yaml,
    yaml_places as yaml_places,
)
from .file_shape import Count as Count, FileShape as FileShape
from .files import (
    is_in_use as is_in_use,
    only_one as only_one,
    replacing as replacing,
    write_bytes as write_bytes,
    write_json as write_json,
    write_new as write_new,
    write_text as write_text,
)
from .interruption import interrupt as interrupt, is_worker as is_worker
from .lease import (
    BEAT as BEAT,
    STALE as STALE,
    WATCH as WATCH,
    Owner as Owner,
    is_here as is_here,
    seems_alive as seems_alive,
    this_process as this_process,
)
from .leftovers import is_leftover as is_leftover, temporary_path as temporary_path
from .manifest import (
    SEAL as SEAL,
    FileRecord as FileRecord,
    Verifier as Verifier,
    check_seal as check_seal,
    check_sealed_text as check_sealed_text,
    file_hash as file_hash,
    file_mark as file_mark,
    file_record as file_record,
    folder_records as folder_records,
    is_sealed as is_sealed,
    read_sealed as read_sealed,
    sealed as sealed,
    sealed_text as sealed_text,
    visible_files as visible_files,
    write_sealed as write_sealed,
)
from .mapped_file import map_file as map_file
from .names import (
    below as below,
    check_links as check_links,
    check_name as check_name,
    check_names as check_names,
    choice_fault as choice_fault,
    chosen as chosen,
    given_by as given_by,
    inside as inside,
    is_glob as is_glob,
    name_fault as name_fault,
    one_value as one_value,
    shown_name as shown_name,
    value_fault as value_fault,
)
from .number_text import (
    bytes_text as bytes_text,
    count_text as count_text,
    difference_text as difference_text,
    duration as duration,
    interval_text as interval_text,
    long_duration as long_duration,
    loss_text as loss_text,
    name_text as name_text,
    rank_text as rank_text,
    share_text as share_text,
    short_count as short_count,
)
from .plugins import (
    PluginKind as PluginKind,
    Trust as Trust,
    build_plugin as build_plugin,
    check_trusted as check_trusted,
    load_object as load_object,
    load_plugin as load_plugin,
    plugin_names as plugin_names,
)
from .process_pool import in_processes as in_processes
from .processes import (
    ANSWER_SECONDS as ANSWER_SECONDS,
    git_commit as git_commit,
    host_name as host_name,
    is_running as is_running,
    machine as machine,
    one_blas_thread as one_blas_thread,
    package_versions as package_versions,
    start_of as start_of,
    usable_cores as usable_cores,
    within as within,
    without_folders as without_folders,
)
from .progress_bars import (
    Say as Say,
    Update as Update,
    no_progress as no_progress,
    progress as progress,
    silent as silent,
    steady_progress as steady_progress,
)
from .server_uris import ServerUri as ServerUri, without_secrets as without_secrets
from .state_fields import (
    Array as Array,
    BoolArray as BoolArray,
    IntArray as IntArray,
    StateFields as StateFields,
    shown_value as shown_value,
)
from .stores import (
    StoredObject as StoredObject,
    cache_folder as cache_folder,
    fetched as fetched,
    is_url as is_url,
    join_url as join_url,
    list_objects as list_objects,
    local_copy as local_copy,
    local_path as local_path,
    made_once as made_once,
    naming as naming,
    object_exists as object_exists,
    read_object as read_object,
    under_folder as under_folder,
    url_fault as url_fault,
    write_object as write_object,
)
from .table_files import read_table as read_table, write_table as write_table
from .terminal_text import (
    terminal_width as terminal_width,
    wrapped as wrapped,
)
from .version import __version__ as __version__
