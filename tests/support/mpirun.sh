#!/bin/sh
# mpirun as tests need it: any number of ranks on any number of cores, also as root in a container, on one machine.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Open MPI leaks; lsan.supp says why whole stacks are needed to tell its leaks from ours.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:fast_unwind_on_malloc=0"
LSAN_OPTIONS="suppressions=$(dirname "$0")/lsan.supp:print_suppressions=0"
export LSAN_OPTIONS
# Collecting the messages of ranks that abort together, mpirun 4.1 may crash.
export OMPI_MCA_orte_base_help_aggregate=0
exec mpirun --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none "$@"
